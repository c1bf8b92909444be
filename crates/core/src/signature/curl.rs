//! Parsing of a captured curl command.

use http::{HeaderMap, Method};

use super::captured::{CapturedError, CapturedRequest};
use super::shell::{UnclosedQuote, shell_words};
use crate::form::FormParams;

/// Options whose value is ignored, by their letter. It must not be read as the URL.
const IGNORED_LETTERS: &str = "bcCDeEFKmoPQrtuUwxyYz";
/// Options like [`IGNORED_LETTERS`], by their name.
///
/// Source: curl's manual, <https://curl.se/docs/manpage.html>.
const IGNORED_NAMES: [&str; 132] = [
    "abstract-unix-socket",
    "alt-svc",
    "aws-sigv4",
    "cacert",
    "capath",
    "cert",
    "cert-type",
    "ciphers",
    "config",
    "connect-timeout",
    "connect-to",
    "continue-at",
    "cookie",
    "cookie-jar",
    "create-file-mode",
    "crlfile",
    "curves",
    "delegation",
    "dns-interface",
    "dns-ipv4-addr",
    "dns-ipv6-addr",
    "dns-servers",
    "doh-url",
    "dump-header",
    "ech",
    "egd-file",
    "engine",
    "etag-compare",
    "etag-save",
    "expect100-timeout",
    "form",
    "form-string",
    "ftp-account",
    "ftp-alternative-to-user",
    "ftp-method",
    "ftp-port",
    "ftp-ssl-ccc-mode",
    "happy-eyeballs-timeout-ms",
    "haproxy-clientip",
    "hostpubmd5",
    "hostpubsha256",
    "hsts",
    "interface",
    "ip-tos",
    "ipfs-gateway",
    "keepalive-cnt",
    "keepalive-time",
    "key",
    "key-type",
    "krb",
    "libcurl",
    "limit-rate",
    "local-port",
    "login-options",
    "mail-auth",
    "mail-from",
    "mail-rcpt",
    "max-filesize",
    "max-redirs",
    "max-time",
    "netrc-file",
    "noproxy",
    "oauth2-bearer",
    "output",
    "output-dir",
    "parallel-max",
    "parallel-max-host",
    "pass",
    "pinnedpubkey",
    "preproxy",
    "proto",
    "proto-default",
    "proto-redir",
    "proxy",
    "proxy-cacert",
    "proxy-capath",
    "proxy-cert",
    "proxy-cert-type",
    "proxy-ciphers",
    "proxy-crlfile",
    "proxy-header",
    "proxy-key",
    "proxy-key-type",
    "proxy-pass",
    "proxy-pinnedpubkey",
    "proxy-service-name",
    "proxy-tls13-ciphers",
    "proxy-tlsauthtype",
    "proxy-tlspassword",
    "proxy-tlsuser",
    "proxy-user",
    "proxy1.0",
    "pubkey",
    "quote",
    "random-file",
    "range",
    "rate",
    "referer",
    "request-target",
    "resolve",
    "retry",
    "retry-delay",
    "retry-max-time",
    "sasl-authzid",
    "service-name",
    "sigalgs",
    "socks4",
    "socks4a",
    "socks5",
    "socks5-gssapi-service",
    "socks5-hostname",
    "speed-limit",
    "speed-time",
    "stderr",
    "telnet-option",
    "tftp-blksize",
    "time-cond",
    "tls-max",
    "tls13-ciphers",
    "tlsauthtype",
    "tlspassword",
    "tlsuser",
    "trace",
    "trace-ascii",
    "trace-config",
    "unix-socket",
    "upload-flags",
    "url-query",
    "user",
    "variable",
    "vlan-priority",
    "write-out",
];

pub(super) fn parse_curl(text: &str) -> Result<CapturedRequest, CapturedError> {
    // cmd.exe escapes quotes with a caret. Decoding that as a POSIX shell would give another body.
    if text.contains("^\"") {
        return Err(CapturedError::Windows);
    }
    // The curl command ends at a pipe, a redirection or the next command.
    let ends_command = |word: &String| {
        matches!(
            word.as_str(),
            "|" | ">" | ">>" | "2>" | "&&" | "||" | ";" | "&"
        )
    };
    let mut words = shell_words(text)
        .map_err(|UnclosedQuote| CapturedError::Quote)?
        .into_iter()
        .skip(1)
        .take_while(|word| !ends_command(word));
    let mut method = None;
    let mut request = CapturedRequest {
        method: Method::GET,
        url: String::new(),
        headers: HeaderMap::new(),
        body: Vec::new(),
    };
    // Content type that curl sends by default, once there is a body.
    let mut content_type = None;
    let mut as_query = false;
    while let Some(word) = words.next() {
        if !word.starts_with('-') || word.len() < 2 {
            // The first word that is not an option is the URL. Further ones would be URLs of further requests.
            if request.url.is_empty() {
                request.url = word;
            }
            continue;
        }
        for (option, attached) in split_options(&word) {
            let mut value = || {
                attached
                    .clone()
                    .or_else(|| words.next())
                    .ok_or_else(|| CapturedError::MissingValue(option.clone()))
            };
            match option.as_str() {
                "-X" | "--request" => {
                    method = Some(value()?.parse().map_err(|_| CapturedError::Method)?);
                }
                "-H" | "--header" => request.push_header(&value()?)?,
                "-A" | "--user-agent" => {
                    request.push_header(&format!("user-agent: {}", value()?))?;
                }
                "--url" => request.url = value()?,
                "-d" | "--data" | "--data-ascii" | "--data-raw" | "--data-binary"
                | "--data-urlencode" | "--json" => {
                    let data = body_part(&option, value()?)?;
                    // curl joins several `-d` with `&`, but not `--json`.
                    if content_type.is_some() && option != "--json" {
                        request.body.push(b'&');
                    }
                    request.body.extend_from_slice(data.as_bytes());
                    if option == "--json" {
                        content_type = Some("application/json");
                    }
                    content_type.get_or_insert("application/x-www-form-urlencoded");
                }
                "-T" | "--upload-file" => return Err(CapturedError::BodyInFile(value()?)),
                "-G" | "--get" => as_query = true,
                _ if takes_value(&option) => drop(value()?),
                _ => {}
            }
        }
    }
    if request.url.is_empty() {
        return Err(CapturedError::NoUrl);
    }
    if as_query {
        request
            .url
            .push(if request.url.contains('?') { '&' } else { '?' });
        request
            .url
            .push_str(&String::from_utf8_lossy(&std::mem::take(&mut request.body)));
        content_type = None;
    }
    if let Some(content_type) = content_type
        && !request.headers.contains_key("content-type")
    {
        request.push_header(&format!("content-type: {content_type}"))?;
    }
    let default_method = if content_type.is_some() {
        Method::POST
    } else {
        Method::GET
    };
    request.method = method.unwrap_or(default_method);
    Ok(request)
}

/// Splits `--name=value`, `-Xvalue` and `-sXvalue` into options, of which the last may have a value attached.
fn split_options(word: &str) -> Vec<(String, Option<String>)> {
    if word.starts_with("--") {
        let option = match word.split_once('=') {
            Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
            None => (word.to_owned(), None),
        };
        return vec![option];
    }
    let mut options = Vec::new();
    let mut letters = word.chars();
    // The hyphen.
    letters.next();
    while let Some(letter) = letters.next() {
        let option = format!("-{letter}");
        if takes_value(&option) {
            // All that follows the letter is its value, as in `-sXPOST`.
            let value = letters.as_str();
            options.push((option, (!value.is_empty()).then(|| value.to_owned())));
            break;
        }
        options.push((option, None));
    }
    options
}

fn takes_value(option: &str) -> bool {
    if let Some(name) = option.strip_prefix("--") {
        return IGNORED_NAMES.contains(&name);
    }
    // Of these letters, `parse_curl` uses the value.
    let mut letters = "AdHTX".chars().chain(IGNORED_LETTERS.chars());
    letters.any(|letter| {
        option
            .strip_prefix('-')
            .is_some_and(|rest| rest.starts_with(letter))
    })
}

/// Returns what an option for data adds to the body.
fn body_part(option: &str, data: String) -> Result<String, CapturedError> {
    // `--data-raw` takes a leading `@` literally; the other options read a file. `--data-urlencode` also reads one
    // for `name@file`, unless it contains `=`: then the `@` is part of the name or of the content.
    let file = match option {
        "--data-raw" => None,
        "--data-urlencode" if data.contains('=') => None,
        "--data-urlencode" => data.find('@'),
        _ => data.starts_with('@').then_some(0),
    };
    if let Some(at) = file {
        return Err(CapturedError::BodyInFile(data[at..].to_owned()));
    }
    Ok(if option == "--data-urlencode" {
        url_encoded(&data)
    } else {
        data
    })
}

/// Encodes a value of `--data-urlencode`. In `name=content` curl encodes only the content.
fn url_encoded(data: &str) -> String {
    let (name, content) = data
        .split_once('=')
        .map_or((None, data), |(name, content)| (Some(name), content));
    // With an empty name, `encode` returns `=` and the encoded content.
    let encoded = FormParams::from_iter([("", content)]).encode();
    match name {
        Some(name) if !name.is_empty() => format!("{name}{encoded}"),
        _ => encoded.trim_start_matches('=').to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::capture_formats::tests::{expected, parsed};
    use super::*;

    #[test]
    fn curl_command_parses_like_shell_and_curl() {
        let copied = "curl 'https://h.test/webhook?x=%20' \\\n  -H 'X-Twilio-Signature: abc=' \\\n  --data-raw $'Body=it\\'s\\u0021&From=a' --compressed";
        assert_eq!(
            parsed(copied),
            expected("POST", "/webhook?x=%20", 3, "Body=it's!&From=a")
        );
        assert_eq!(
            parsed(
                "curl -XPUT --url=https://h.test -d a=1 -d \"b=\\\"2\\\"\" --data-urlencode 'c=x y&' -s"
            ),
            expected("PUT", "/", 2, "a=1&b=\"2\"&c=x+y%26")
        );
        assert_eq!(
            parsed("curl -G https://h.test/w -d a=1"),
            expected("GET", "/w?a=1", 1, "")
        );
    }

    #[test]
    fn curl_letters_may_share_one_hyphen() {
        let put = expected("PUT", "/w", 2, "a=1");
        for options in ["-sX PUT -d a=1", "-sSLXPUT -ida=1", "-X PUT -kd a=1"] {
            let text = format!("curl {options} https://h.test/w");
            assert_eq!(parsed(&text), put, "{options}");
        }
    }

    #[test]
    fn curl_option_value_is_not_read_as_url() {
        for options in [
            "--max-redirs 5",
            "-sm 5",
            "-om5",
            "--proto '=https'",
            "--noproxy '*' -Lvb a=1",
        ] {
            let text = format!("curl {options} https://h.test/w");
            assert_eq!(parsed(&text), expected("GET", "/w", 1, ""), "{options}");
        }
        let text = "curl --json '{\"a\":' --json 1} https://h.test/w";
        assert_eq!(parsed(text), expected("POST", "/w", 2, "{\"a\":1}"));
        let request = CapturedRequest::parse(text).unwrap();
        assert_eq!(request.headers["content-type"], "application/json");
    }

    #[test]
    fn curl_body_from_file_is_rejected() {
        for (options, file) in [
            ("-d @body.txt", "@body.txt"),
            ("-sd@body.txt", "@body.txt"),
            ("--json @-", "@-"),
            ("--data-urlencode Body@body.txt", "@body.txt"),
            ("-T body.txt", "body.txt"),
        ] {
            let text = format!("curl https://h.test/w {options}");
            let error = CapturedRequest::parse(&text).unwrap_err();
            assert_eq!(error, CapturedError::BodyInFile(file.to_owned()));
        }
        let text = "curl https://h.test/w --data-urlencode @a=b@c --data-raw @d";
        assert_eq!(parsed(text), expected("POST", "/w", 2, "@a=b%40c&@d"));
    }
}
