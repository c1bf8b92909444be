//! Media links and their files.

use std::sync::Arc;

use replyhook::internals::{
    CHUNK_BYTES, LINK_TAG_BYTES, LinkSource, LinkTarget, LinkTokenHash, NewLink, Store, TwilioMedia,
};
use replyhook::signature::AuthTokenKind;
use replyhook::store::sqlite::SqliteStore;
use replyhook::store::{Access, StoreErrorKind};

use super::{
    ANA, BEN, Backend, Kind, accept_and_answer, account, at, inbound_from, over_all_stores, sid,
};
use crate::support::Wait;

over_all_stores!(
    media_link_resolves_until_expiry,
    stored_media_is_read_in_chunks,
    inbound_media_link_resolves_to_twilio_media,
    equal_files_remain_until_longest_link_expires,
    purged_user_leaves_no_media,
    media_link_survives_crash_on_every_machine,
    signing_key_survives_crash_and_deletion_of_content,
    concurrently_opened_stores_share_signing_key,
);

fn token_hash(number: u8) -> LinkTokenHash {
    LinkTokenHash([number; 32])
}

fn stored_bytes(text: &str) -> LinkSource {
    LinkSource::Stored(Arc::from(text.as_bytes()))
}

fn new_link(number: u8, file: LinkSource, until: i64) -> NewLink {
    NewLink {
        token_hash: token_hash(number),
        file,
        content_type: Some("image/png".to_owned()),
        message: None,
        expires_at: at(until),
    }
}

/// Expires links in as many steps as it takes.
async fn expire_all_links(store: &dyn Store, seconds: i64) {
    let wait = Wait::until("no more link expires");
    while store.expire_links(at(seconds)).await.unwrap() {
        wait.check();
    }
}

/// Resolves a link to a stored file, and reads all of its chunks.
async fn read_link(store: &dyn Store, number: u8, seconds: i64) -> Option<LinkSource> {
    let linked = store
        .resolve_link(token_hash(number), at(seconds))
        .await
        .unwrap()?;
    let LinkTarget::Stored { hash, length } = linked.file else {
        panic!("{linked:?}");
    };
    let mut bytes = Vec::new();
    for number in 0.. {
        let Some(piece) = store.read_chunk(hash, number).await.unwrap() else {
            break;
        };
        bytes.extend(piece);
    }
    assert_eq!(bytes.len() as u64, length);
    Some(LinkSource::Stored(bytes.into()))
}

async fn media_link_resolves_until_expiry(backend: &mut Backend) {
    let store = backend.store();
    let all: Vec<u8> = (0..=255).collect();
    let file = LinkSource::Stored(all.into());
    store
        .create_link(new_link(1, file.clone(), 10))
        .await
        .unwrap();
    let linked = store
        .resolve_link(token_hash(1), at(9))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(linked.content_type.as_deref(), Some("image/png"));
    assert_eq!(read_link(store, 1, 9).await, Some(file));
    assert_eq!(read_link(store, 1, 10).await, None);
    assert_eq!(read_link(store, 2, 0).await, None);
    assert!(!store.expire_links(at(9)).await.unwrap());
    assert!(store.expire_links(at(10)).await.unwrap());
    assert!(!store.expire_links(at(10)).await.unwrap());
    assert_eq!(read_link(store, 1, 0).await, None);
    // A link token cannot be used for a second link.
    store
        .create_link(new_link(3, stored_bytes("a"), 10))
        .await
        .unwrap();
    assert!(
        store
            .create_link(new_link(3, stored_bytes("b"), 10))
            .await
            .is_err()
    );
}

async fn stored_media_is_read_in_chunks(backend: &mut Backend) {
    let store = backend.store();
    for (number, length) in [(1, CHUNK_BYTES), (2, CHUNK_BYTES * 2 + 1)] {
        let all: Vec<u8> = (0..=250).cycle().take(length).collect();
        let file = LinkSource::Stored(all.into());
        store
            .create_link(new_link(number, file.clone(), 10))
            .await
            .unwrap();
        assert_eq!(read_link(store, number, 0).await, Some(file));
    }
    let linked = store
        .resolve_link(token_hash(2), at(0))
        .await
        .unwrap()
        .unwrap();
    let LinkTarget::Stored { hash, .. } = linked.file else {
        panic!("{linked:?}");
    };
    let last = store.read_chunk(hash, 2).await.unwrap();
    assert_eq!(last.map(|piece| piece.len()), Some(1));
    assert!(store.expire_links(at(10)).await.unwrap());
    assert_eq!(store.read_chunk(hash, 0).await.unwrap(), None);
}

async fn inbound_media_link_resolves_to_twilio_media(backend: &mut Backend) {
    let store = backend.store();
    let file = TwilioMedia {
        account: account(),
        auth_token: AuthTokenKind::Secondary,
        message: sid(7),
        media: "ME00000000000000000000000000000001".parse().unwrap(),
    };
    let content_type = Some("te\0xt/\u{1}".to_owned());
    let link = NewLink {
        content_type: content_type.clone(),
        ..new_link(1, LinkSource::Twilio(file.clone()), 10)
    };
    store.create_link(link).await.unwrap();
    let linked = store
        .resolve_link(token_hash(1), at(0))
        .await
        .unwrap()
        .unwrap();
    let expected = (LinkTarget::Twilio(file), content_type);
    assert_eq!((linked.file, linked.content_type), expected);
    assert!(store.expire_links(at(10)).await.unwrap());
}

async fn equal_files_remain_until_longest_link_expires(backend: &mut Backend) {
    let store = backend.store();
    store
        .create_link(new_link(1, stored_bytes("same"), 10))
        .await
        .unwrap();
    store
        .create_link(new_link(2, stored_bytes("same"), 30))
        .await
        .unwrap();
    store
        .create_link(new_link(3, stored_bytes("same"), 20))
        .await
        .unwrap();
    expire_all_links(store, 20).await;
    assert_eq!(read_link(store, 2, 20).await, Some(stored_bytes("same")));
    assert_eq!(read_link(store, 3, 0).await, None);
    expire_all_links(store, 30).await;
    assert_eq!(read_link(store, 2, 0).await, None);
}

// A file remains if another user's link leads to it.
async fn purged_user_leaves_no_media(backend: &mut Backend) {
    let store = backend.store();
    accept_and_answer(store, inbound_from(&[ANA], 1)).await;
    accept_and_answer(store, inbound_from(&[BEN], 2)).await;
    for (number, file, message) in [
        (1, "hers", 1),
        (2, "both", 1),
        (3, "both", 2),
        (4, "his", 2),
    ] {
        let link = NewLink {
            message: Some(sid(message)),
            ..new_link(number, stored_bytes(file), 10)
        };
        store.create_link(link).await.unwrap();
    }
    store.purge_user(&ANA.into(), None, false).await.unwrap();
    assert_eq!(read_link(store, 1, 0).await, None);
    assert_eq!(read_link(store, 2, 0).await, None);
    assert_eq!(read_link(store, 3, 0).await, Some(stored_bytes("both")));
    assert_eq!(read_link(store, 4, 0).await, Some(stored_bytes("his")));
    store.delete_everything().await.unwrap();
    assert_eq!(read_link(store, 4, 0).await, None);
    assert!(!store.expire_links(at(99)).await.unwrap());
}

async fn media_link_survives_crash_on_every_machine(backend: &mut Backend) {
    backend
        .store()
        .create_link(new_link(1, stored_bytes("file"), 10))
        .await
        .unwrap();
    if backend.kind == Kind::Memory {
        return;
    }
    #[cfg(feature = "postgres")]
    if backend.kind == Kind::Postgres {
        let other = backend.another();
        other.open(Access::Owner).await.unwrap();
        assert_eq!(read_link(&*other, 1, 0).await, Some(stored_bytes("file")));
        other
            .create_link(new_link(2, stored_bytes("file"), 20))
            .await
            .unwrap();
        assert_eq!(
            read_link(backend.store(), 2, 0).await,
            Some(stored_bytes("file"))
        );
    }
    assert!(backend.crash().await);
    assert_eq!(
        read_link(backend.store(), 1, 0).await,
        Some(stored_bytes("file"))
    );
}

/// Returns the tag of a fixed token, because the signing key itself is not readable.
fn tag(store: &dyn Store) -> [u8; LINK_TAG_BYTES] {
    store.link_signing_key().unwrap().tag(&[7; 32])
}

async fn signing_key_survives_crash_and_deletion_of_content(backend: &mut Backend) {
    let closed = backend.another();
    let error = closed.link_signing_key().unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::NotOpen);
    let before = tag(backend.store());
    accept_and_answer(backend.store(), inbound_from(&[ANA], 1)).await;
    backend
        .store()
        .purge_user(&ANA.into(), None, true)
        .await
        .unwrap();
    backend.store().delete_everything().await.unwrap();
    assert_eq!(tag(backend.store()), before);
    if backend.crash().await {
        assert_eq!(tag(backend.store()), before);
        // A command that runs alongside the server reads the same key.
        let command = backend.another();
        command.open(Access::Operator).await.unwrap();
        assert_eq!(tag(&*command), before);
    }
    // The key is random: another store has another one.
    let other = SqliteStore::memory();
    other.open(Access::Owner).await.unwrap();
    assert_ne!(tag(&other), before);
}

async fn concurrently_opened_stores_share_signing_key(backend: &mut Backend) {
    match backend.kind {
        Kind::Memory => {}
        // An SQLite file has one server, but a command may open it while the server starts.
        Kind::File => {
            let db = rusqlite::Connection::open(backend.path()).unwrap();
            db.execute("DELETE FROM media_link_key", []).unwrap();
            let (one, two) = (backend.another(), backend.another());
            let (first, second) =
                tokio::join!(one.open(Access::Operator), two.open(Access::Operator));
            first.unwrap();
            second.unwrap();
            assert_eq!(tag(&*one), tag(&*two));
        }
        #[cfg(feature = "postgres")]
        Kind::Postgres => {
            backend.store = None;
            backend
                .database()
                .run("DROP SCHEMA replyhook CASCADE")
                .await;
            let (one, two) = (backend.another(), backend.another());
            let (first, second) = tokio::join!(one.open(Access::Owner), two.open(Access::Owner));
            first.unwrap();
            second.unwrap();
            assert_eq!(tag(&*one), tag(&*two));
            one.create_link(new_link(1, stored_bytes("file"), 10))
                .await
                .unwrap();
            assert_eq!(read_link(&*two, 1, 0).await, Some(stored_bytes("file")));
        }
    }
}
