//! Any bytes decode as the URL standard says, or are refused because they are no text; and pairs survive encoding.
#![no_main]

use libfuzzer_sys::fuzz_target;
use replyhook::Form;

fuzz_target!(|input: &[u8]| {
    let reference: Vec<_> = form_urlencoded::parse(input).collect();
    let Ok(form) = Form::parse(input, usize::MAX) else {
        // The reference puts U+FFFD where bytes are no text.
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
    assert_eq!(Form::parse(form.encode().as_bytes(), usize::MAX), Ok(form));
});
