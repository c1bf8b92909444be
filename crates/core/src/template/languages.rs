//! Languages of WhatsApp's templates.
//!
//! Source: Meta's page "Supported languages" of templates.

/// Codes that WhatsApp knows, separated by blanks.
const LANGUAGES: &str = "af sq ar ar_EG ar_AE ar_LB ar_MA ar_QA az be_BY bn bn_IN bg ca zh_CN zh_HK zh_TW hr cs da prs_AF nl \
    nl_BE en en_GB en_US en_AE en_AU en_CA en_GH en_IE en_IN en_JM en_MY en_NZ en_QA en_SG en_UG en_ZA et fil fi fr fr_BE \
    fr_CA fr_CH fr_CI fr_MA ka de de_AT de_CH el gu ha he hi hu id ga it ja kn kk rw_RW ko ky_KG lo lv lt mk ms ml mr nb \
    ps_AF fa pl pt_BR pt_PT pa ro ru sr si_LK sk sl es es_AR es_CL es_CO es_CR es_DO es_EC es_HN es_MX es_PA es_PE es_ES \
    es_UY sw sv ta te th tr uk ur uz vi zu";

/// Returns whether WhatsApp knows a language code.
pub(super) fn is_language(code: &str) -> bool {
    LANGUAGES.split(' ').any(|known| known == code)
}

/// Returns the code that a wrong one probably means, such as `pt_BR` for `pt-br`.
pub(super) fn suggested_language(code: &str) -> Option<&'static str> {
    let code = code.trim().replace('-', "_");
    let find = |wanted: &str| {
        LANGUAGES
            .split(' ')
            .find(|known| known.eq_ignore_ascii_case(wanted))
    };
    // Without the region, such as `de` for `de_DE`.
    find(&code).or_else(|| find(code.split('_').next()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_language_gets_a_suggestion() {
        for known in ["en", "pt_BR", "fil", "zu"] {
            assert!(is_language(known), "{known}");
        }
        for (wrong, suggested) in [
            ("pt-br", Some("pt_BR")),
            ("EN", Some("en")),
            ("de_DE", Some("de")),
            ("rw", None),
            ("english", None),
            ("", None),
        ] {
            assert!(!is_language(wrong), "{wrong}");
            assert_eq!(suggested_language(wrong), suggested, "{wrong}");
        }
    }
}
