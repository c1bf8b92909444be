//! New messages of the outbox as array parameters.

use replyhook_core::address_key::{AddressKey, ConsentKey};
use sqlx::Postgres;
use sqlx::postgres::PgArguments;
use sqlx::query::QueryAs;

use super::text::pack;
use crate::store::outbound_message::NewOutbound;
use crate::store::packing;

/// SQL rows `r` of the new messages, whose `ordinal` counts from 1. [`Columns::bind`] binds the nine parameters.
macro_rules! new_outbound_rows {
    ($account:literal, $auth_token:literal, $sender:literal, $address:literal, $address_key:literal, $consent_key:literal, $service:literal, $template:literal, $params:literal) => {
        concat!(
            "unnest(",
            $account,
            "::bytea[], ",
            $auth_token,
            "::bigint[], ",
            $sender,
            "::text[], ",
            $address,
            "::text[], ",
            $address_key,
            "::text[], ",
            $consent_key,
            "::text[], ",
            $service,
            "::text[], ",
            $template,
            "::boolean[], ",
            $params,
            "::text[]) WITH ORDINALITY \
             AS r (account, auth_token, sender, address, address_key, consent_key, service, template, params, ordinal)"
        )
    };
}
pub(super) use new_outbound_rows;

/// Columns of new messages, the parameters of `new_outbound_rows!`.
#[derive(Default)]
pub(super) struct Columns {
    accounts: Vec<Vec<u8>>,
    auth_tokens: Vec<i64>,
    senders: Vec<String>,
    addresses: Vec<String>,
    address_keys: Vec<String>,
    consent_keys: Vec<String>,
    services: Vec<Option<String>>,
    templates: Vec<bool>,
    params: Vec<String>,
}

impl Columns {
    pub(super) fn of(replies: &[NewOutbound]) -> Self {
        let mut columns = Self::default();
        for reply in replies {
            let service = reply.service.as_ref();
            columns
                .accounts
                .push(packing::sid_bytes(reply.account.as_str()));
            columns
                .auth_tokens
                .push(packing::auth_token_number(reply.auth_token));
            columns
                .senders
                .push(pack(reply.sender.as_str()).into_owned());
            columns
                .addresses
                .push(pack(reply.user.as_str()).into_owned());
            let key = AddressKey::of(&reply.user);
            columns.address_keys.push(pack(key.as_str()).into_owned());
            columns
                .consent_keys
                .push(pack(ConsentKey::from(&key).as_str()).into_owned());
            columns
                .services
                .push(service.map(|sid| sid.as_str().to_owned()));
            columns.templates.push(reply.template);
            columns
                .params
                .push(pack(&reply.params.encode()).into_owned());
        }
        columns
    }

    /// Binds the parameters of `new_outbound_rows!`, in their order.
    pub(super) fn bind<'q, O>(
        &'q self,
        query: QueryAs<'q, Postgres, O, PgArguments>,
    ) -> QueryAs<'q, Postgres, O, PgArguments> {
        query
            .bind(&self.accounts)
            .bind(&self.auth_tokens)
            .bind(&self.senders)
            .bind(&self.addresses)
            .bind(&self.address_keys)
            .bind(&self.consent_keys)
            .bind(&self.services)
            .bind(&self.templates)
            .bind(&self.params)
    }
}
