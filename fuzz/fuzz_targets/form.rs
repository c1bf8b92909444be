//! Decoding of a form body.
//!
//! Any bytes decode as the URL standard specifies, or are rejected because they are not UTF-8. Encoding the parameters
//! and decoding them again gives the same parameters.
#![no_main]

use libfuzzer_sys::fuzz_target;
use replyhook::FormParams;

fuzz_target!(|input: &[u8]| {
    let reference: Vec<_> = form_urlencoded::parse(input).collect();
    // No limit on the number of parameters: exceeding it would be another reason to reject the bytes.
    let Ok(form) = FormParams::parse(input, usize::MAX) else {
        // `form_urlencoded` accepts invalid UTF-8, and replaces it with U+FFFD. A body that contains U+FFFD itself is
        // valid, so this check is necessary but not sufficient.
        let replaced = |text: &str| text.contains('\u{FFFD}');
        assert!(
            reference
                .iter()
                .any(|(name, value)| replaced(name) || replaced(value))
        );
        return;
    };
    assert!(
        form.iter()
            .eq(reference.iter().map(|(name, value)| (&**name, &**value)))
    );
    assert_eq!(
        FormParams::parse(form.encode().as_bytes(), usize::MAX),
        Ok(form)
    );
});
