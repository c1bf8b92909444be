//! Country of a user or sender, derived from the message and the address.
//!
//! For SMS, Twilio sends the country in `FromCountry`. A business-scoped id begins with it. For other phone numbers the
//! calling code decides, and the area code if several countries share a calling code.
//!
//! Source: ITU-T E.164's list of assigned country codes, and NANPA's list of area codes.

use crate::address::{Address, Identity};
use crate::message::InboundMessage;

/// Returns the country of a message's author as two letters, such as `DE`.
pub(crate) fn country(message: &InboundMessage) -> Option<&str> {
    // Twilio's own statement takes precedence over the tables of this module.
    let stated = message.from_geo.country.as_deref();
    stated.or_else(|| country_of_address(&message.from))
}

/// Returns the country of an address as two letters.
pub(crate) fn country_of_address(address: &Address) -> Option<&str> {
    match address.identity() {
        // As in `US.13491208655302741918`: the country before the dot.
        Identity::BusinessScopedId => address.id().split('.').next(),
        Identity::Phone => country_of_number(address.id().trim_start_matches('+')),
        _ => None,
    }
}

fn country_of_number(digits: &str) -> Option<&'static str> {
    if let Some(rest) = digits.strip_prefix('1') {
        let area = rest.get(..3)?;
        // `NANP_AREA_CODES` lists the other countries of +1; any other area code counts as the United States.
        let shared = NANP_AREA_CODES
            .iter()
            .find(|(_, areas)| areas.split(' ').any(|known| known == area));
        return Some(shared.map_or("US", |(country, _)| country));
    }
    // +7 is shared by Russia and Kazakhstan, which has the numbers that begin with 6 or 7.
    if digits.starts_with("76") || digits.starts_with("77") {
        return Some("KZ");
    }
    let codes = CALLING_CODES
        .split(' ')
        .filter_map(|entry| entry.split_once('='));
    // The longest match counts: `35818` is the Åland Islands, the rest of `358` is Finland.
    codes
        .filter(|(code, _)| digits.starts_with(code))
        .max_by_key(|(code, _)| code.len())
        .map(|(_, country)| country)
}

/// Countries that share calling code +1 with the United States, each with its area codes.
const NANP_AREA_CODES: [(&str, &str); 24] = [
    (
        "CA",
        "204 226 236 249 250 257 263 289 306 343 354 365 367 368 382 403 416 418 428 431 437 438 450 460 468 474 506 514 519 \
            548 579 581 584 587 600 604 613 622 639 647 672 683 705 709 742 753 778 780 782 807 819 825 867 873 879 902 905",
    ),
    ("BS", "242"),
    ("BB", "246"),
    ("AI", "264"),
    ("AG", "268"),
    ("VG", "284"),
    ("VI", "340"),
    ("KY", "345"),
    ("BM", "441"),
    ("GD", "473"),
    ("TC", "649"),
    ("JM", "658 876"),
    ("MS", "664"),
    ("MP", "670"),
    ("GU", "671"),
    ("AS", "684"),
    ("SX", "721"),
    ("LC", "758"),
    ("DM", "767"),
    ("VC", "784"),
    ("PR", "787 939"),
    ("DO", "809 829 849"),
    ("TT", "868"),
    ("KN", "869"),
];

/// Calling codes, each with its country. Codes may be prefixes of each other; the longest match counts.
const CALLING_CODES: &str = "7=RU 20=EG 27=ZA 30=GR 31=NL 32=BE 33=FR 34=ES 36=HU 39=IT 3906698=VA 40=RO 41=CH 43=AT \
44=GB 45=DK 46=SE 47=NO 4779=SJ 48=PL 49=DE 51=PE 52=MX 53=CU 54=AR 55=BR 56=CL 57=CO 58=VE 60=MY 61=AU 62=ID 63=PH \
64=NZ 65=SG 66=TH 81=JP 82=KR 84=VN 86=CN 90=TR 91=IN 92=PK 93=AF 94=LK 95=MM 98=IR 211=SS 212=MA 213=DZ 216=TN \
218=LY 220=GM 221=SN 222=MR 223=ML 224=GN 225=CI 226=BF 227=NE 228=TG 229=BJ 230=MU 231=LR 232=SL 233=GH 234=NG \
235=TD 236=CF 237=CM 238=CV 239=ST 240=GQ 241=GA 242=CG 243=CD 244=AO 245=GW 246=IO 247=AC 248=SC 249=SD 250=RW \
251=ET 252=SO 253=DJ 254=KE 255=TZ 256=UG 257=BI 258=MZ 260=ZM 261=MG 262=RE 262269=YT 262639=YT 263=ZW 264=NA \
265=MW 266=LS 267=BW 268=SZ 269=KM 290=SH 291=ER 297=AW 298=FO 299=GL 350=GI 351=PT 352=LU 353=IE 354=IS 355=AL \
356=MT 357=CY 358=FI 35818=AX 359=BG 370=LT 371=LV 372=EE 373=MD 374=AM 375=BY 376=AD 377=MC 378=SM 380=UA 381=RS \
382=ME 383=XK 385=HR 386=SI 387=BA 389=MK 420=CZ 421=SK 423=LI 500=FK 501=BZ 502=GT 503=SV 504=HN 505=NI 506=CR \
507=PA 508=PM 509=HT 590=GP 591=BO 592=GY 593=EC 594=GF 595=PY 596=MQ 597=SR 598=UY 5993=BQ 5994=BQ 5997=BQ 5999=CW \
670=TL 672=NF 673=BN 674=NR 675=PG 676=TO 677=SB 678=VU 679=FJ 680=PW 681=WF 682=CK 683=NU 685=WS 686=KI 687=NC \
688=TV 689=PF 690=TK 691=FM 692=MH 850=KP 852=HK 853=MO 855=KH 856=LA 880=BD 886=TW 960=MV 961=LB 962=JO 963=SY \
964=IQ 965=KW 966=SA 967=YE 968=OM 970=PS 971=AE 972=IL 973=BH 974=QA 975=BT 976=MN 977=NP 992=TJ 993=TM 994=AZ \
995=GE 996=KG 998=UZ";

#[cfg(test)]
mod tests {
    use super::*;

    // Area codes decide where several countries share a calling code.
    #[test]
    fn country_is_found_by_longest_calling_code() {
        for (number, country) in [
            ("15550001111", Some("US")),
            ("14165550100", Some("CA")),
            ("18765550100", Some("JM")),
            ("17875550100", Some("PR")),
            ("4915112345678", Some("DE")),
            ("79161234567", Some("RU")),
            ("77011234567", Some("KZ")),
            ("35850123456", Some("FI")),
            ("3581812345", Some("AX")),
            ("5511987654321", Some("BR")),
            ("2126123", Some("MA")),
            ("999", None),
            ("1", None),
        ] {
            assert_eq!(country_of_number(number), country, "{number}");
        }
    }

    #[test]
    fn calling_codes_are_unique_and_well_formed() {
        let mut codes: Vec<_> = CALLING_CODES
            .split(' ')
            .map(|entry| entry.split_once('=').unwrap())
            .collect();
        let all = codes.len();
        for (code, country) in &codes {
            assert!(code.bytes().all(|b| b.is_ascii_digit()), "{code}");
            assert!(
                country.len() == 2 && country.bytes().all(|b| b.is_ascii_uppercase()),
                "{country}"
            );
        }
        codes.sort_unstable();
        codes.dedup_by_key(|(code, _)| *code);
        assert_eq!(codes.len(), all);
        for (_, areas) in NANP_AREA_CODES {
            assert!(areas.split(' ').all(|area| area.len() == 3), "{areas}");
        }
    }
}
