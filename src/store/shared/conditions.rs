//! Conditions that statements of both databases have in common.

/// SQL condition: the user of the row `$row` has opted out, under any address.
// A sender that equals the service means that the service chooses the sender, so an opt-out from any sender counts.
macro_rules! opted_out {
    ($row:literal) => {
        concat!(
            "EXISTS (SELECT 1 FROM consent c WHERE c.opted_out IS NOT NULL \
               AND (c.scope = ",
            $row,
            ".sender OR c.scope = ",
            $row,
            ".service OR ",
            $row,
            ".sender = ",
            $row,
            ".service) \
               AND (c.address = ",
            $row,
            ".address OR c.address IN (SELECT b.address FROM conversation_address a \
                 JOIN conversation_address b ON b.conversation = a.conversation \
                 WHERE a.sender = ",
            $row,
            ".sender AND a.address = ",
            $row,
            ".address)))"
        )
    };
}
pub(in crate::store) use opted_out;
