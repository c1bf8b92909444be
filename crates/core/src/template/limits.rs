//! Limits of content in characters, or in numbers of parts.
//!
//! Source: twilio.com/docs/content, and Meta's pages of template components. Where they differ, the lower value.

/// Maximum length of `twilio/text` on a channel other than WhatsApp.
pub const MAX_TEXT: usize = 1600;
/// Maximum length of a body on WhatsApp.
pub const MAX_BODY: usize = 1024;
/// Maximum length of the body above link and call buttons.
pub const MAX_CALL_TO_ACTION_BODY: usize = 640;
/// Maximum length of the title of a quick reply.
pub const MAX_BUTTON_TITLE: usize = 20;
/// Maximum length of the title of any other button.
pub const MAX_LINK_TITLE: usize = 25;
/// Maximum length of the ID of a button.
pub const MAX_BUTTON_ID: usize = 128;
/// Maximum length of the title of a list's row.
pub const MAX_ROW_TITLE: usize = 24;
/// Maximum length of the ID of a list's row.
pub const MAX_ROW_ID: usize = 200;
/// Maximum length of the description of a list's row.
pub const MAX_ROW_DESCRIPTION: usize = 72;
/// Maximum length of the label of a list's button. Twilio has no limit; this is Meta's.
pub const MAX_LIST_BUTTON: usize = 20;
/// Maximum number of rows of a list.
pub const MAX_ROWS: usize = 10;
/// Maximum length of a header and of a footer.
pub const MAX_HEADER: usize = 60;
/// Maximum length of the title of a card on RCS.
pub const MAX_RCS_TITLE: usize = 200;
/// Maximum number of buttons on a card with media on RCS, those among the chips excluded.
pub const MAX_CARD_ACTIONS_ON_RCS: usize = 4;
/// Maximum length of title and body of a carousel's card together.
pub const MAX_CAROUSEL_CARD: usize = 160;
/// Maximum number of cards of a carousel.
pub const MAX_CARDS: usize = 10;
/// Maximum number of buttons of a carousel's card.
pub const MAX_CARD_BUTTONS: usize = 2;
/// Maximum number of buttons on WhatsApp and Messenger.
pub const MAX_BUTTONS: usize = 10;
/// Maximum number of chips on RCS.
pub const MAX_CHIPS: usize = 11;
/// Maximum number of buttons that open a URL, on WhatsApp.
pub const MAX_URL_BUTTONS: usize = 2;
/// Maximum number of quick replies without an approval, on WhatsApp.
pub const MAX_SESSION_BUTTONS: usize = 3;
/// Maximum length of the URL of a button.
pub const MAX_URL: usize = 2000;
/// Maximum length of the phone number of a button.
pub const MAX_PHONE: usize = 20;
/// Maximum length of the code that a button copies.
pub const MAX_CODE: usize = 15;
/// Maximum number of media files of a message.
pub const MAX_MEDIA: usize = 10;
/// Maximum length of the name of a template.
pub const MAX_NAME: usize = 512;
/// Maximum number of variables of a template.
pub const MAX_VARIABLES: usize = 100;
/// Maximum length of the name of a variable.
pub const MAX_VARIABLE_NAME: usize = 16;
/// Maximum length of the value of a variable.
pub const MAX_VARIABLE_VALUE: usize = 1600;
