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

/// SQL condition: the row `$row` of `outbound` must not be sent, because its user has opted out. The confirmation of an opt-out
/// is sent.
macro_rules! must_be_suppressed {
    ($row:literal) => {
        concat!(
            "(",
            $row,
            ".confirms_opt_out IS NULL AND ",
            $crate::store::shared::conditions::opted_out!($row),
            ")"
        )
    };
}
pub(in crate::store) use must_be_suppressed;

/// SQL condition: the row `$row` of `outbound` was addressed to a former user of its address. A reply counts by the message that
/// it answers, which may be from before a split although the reply was queued after it.
// By IDs, which do not depend on clocks. The time covers an older message that was stored late.
macro_rules! has_new_owner {
    ($row:literal) => {
        concat!(
            "EXISTS (SELECT 1 FROM identity_split x WHERE x.address_key = ",
            $row,
            ".address_key AND x.account = ",
            $row,
            ".account AND ((",
            $row,
            ".inbound IS NULL AND ",
            $row,
            ".id <= x.last_outbound) OR ",
            $row,
            ".inbound <= x.last_inbound OR EXISTS (SELECT 1 FROM inbound y WHERE y.id = ",
            $row,
            ".inbound AND y.received_at < x.at)))"
        )
    };
}
pub(in crate::store) use has_new_owner;

/// SQL condition: the sender or service in the column `$scope` is of the account in the parameter `$account`, or its account is
/// unknown. NULL means any account.
macro_rules! in_account {
    ($scope:literal, $account:literal) => {
        concat!(
            "NOT EXISTS (SELECT 1 FROM scope_account o WHERE o.scope = ",
            $scope,
            " AND o.account <> ",
            $account,
            ")"
        )
    };
}
pub(in crate::store) use in_account;

/// SQL condition: the entry of `consent_ledger` is of the account in the parameter `$account`, whose SID is the parameter `$sid`.
// A merge or a split has the SID of its account as its scope.
macro_rules! entry_in_account {
    ($account:literal, $sid:literal) => {
        concat!(
            "(",
            $sid,
            " IS NULL OR consent_ledger.scope = ",
            $sid,
            " OR (NOT (consent_ledger.scope LIKE 'AC%' AND length(consent_ledger.scope) = 34) AND ",
            $crate::store::shared::conditions::in_account!("consent_ledger.scope", $account),
            "))"
        )
    };
}
pub(in crate::store) use entry_in_account;
