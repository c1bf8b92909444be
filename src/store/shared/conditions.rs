//! Conditions that statements of both databases have in common.

/// SQL condition: the user of the row `$row` has opted out, under any address.
// `suppressed` of the row's own address covers the user's other addresses. A sender that equals the service means that the
// service chooses the sender, so an opt-out from any sender counts. A message that does not name the service of its sender is
// covered by an opt-out from it.
macro_rules! opted_out {
    ($row:literal) => {
        concat!(
            "EXISTS (SELECT 1 FROM consent c WHERE c.consent_key = ",
            $row,
            ".consent_key AND c.suppressed IS NOT NULL \
               AND (c.scope = ",
            $row,
            ".sender OR c.scope = ",
            $row,
            ".service OR c.scope = (SELECT v.service FROM service_sender v WHERE v.sender = ",
            $row,
            ".sender) OR ",
            $row,
            ".sender = ",
            $row,
            ".service))"
        )
    };
}
pub(in crate::store) use opted_out;
