//! Conditions that several statements have in common.

/// Condition: the user of a row of `outbound` has opted out, under any address.
// A sender that equals the service means that the service chooses the sender, so an opt-out from any sender counts.
macro_rules! opted_out {
    () => {
        "EXISTS (SELECT 1 FROM consent c WHERE c.opted_out IS NOT NULL \
           AND (c.scope = outbound.sender OR c.scope = outbound.service OR outbound.sender = outbound.service) \
           AND (c.address = outbound.address OR c.address IN (SELECT b.address FROM conversation_address a \
             JOIN conversation_address b ON b.conversation = a.conversation \
             WHERE a.sender = outbound.sender AND a.address = outbound.address)))"
    };
}
pub(super) use opted_out;
