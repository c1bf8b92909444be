//! Links, and what they lead to.

use std::sync::Arc;

use replyhook::signature::TokenSlot;
use replyhook::store::sqlite::SqliteStore;
use replyhook::store::{
    Access, FileAtTwilio, LINK_TAG_BYTES, LinkKey, LinkedFile, NewFile, NewLink, PIECE_BYTES,
    Store, StoreErrorKind,
};

use super::{ANA, BEN, Backend, Kind, account, at, converse, from, over_all_stores, sid};

over_all_stores!(
    a_link_leads_to_its_file_until_its_time_is_up,
    a_file_is_given_in_pieces,
    a_link_to_what_came_says_where_it_is,
    equal_files_are_kept_once_and_as_long_as_the_longest_link,
    a_purged_user_leaves_no_link_and_no_file,
    links_outlive_a_crash_and_are_followed_on_every_machine,
    signing_key_survives_crash_and_deletion_of_content,
    signing_key_of_two_stores_that_open_together_is_one,
);

fn key(number: u8) -> LinkKey {
    LinkKey([number; 32])
}

fn bytes(text: &str) -> NewFile {
    NewFile::Ours(Arc::from(text.as_bytes()))
}

fn link(number: u8, file: NewFile, until: i64) -> NewLink {
    NewLink {
        key: key(number),
        file,
        content_type: Some("image/png".to_owned()),
        message: None,
        expires_at: at(until),
    }
}

/// What a link leads to, whole.
async fn follow(store: &dyn Store, number: u8, seconds: i64) -> Option<NewFile> {
    let linked = store.linked(key(number), at(seconds)).await.unwrap()?;
    let LinkedFile::Ours { hash, length } = linked.file else {
        panic!("{linked:?}");
    };
    let mut bytes = Vec::new();
    for number in 0.. {
        let Some(piece) = store.piece(hash, number).await.unwrap() else {
            break;
        };
        bytes.extend(piece);
    }
    assert_eq!(bytes.len() as u64, length);
    Some(NewFile::Ours(bytes.into()))
}

async fn a_link_leads_to_its_file_until_its_time_is_up(backend: &mut Backend) {
    let store = backend.store();
    let all: Vec<u8> = (0..=255).collect();
    let file = NewFile::Ours(all.into());
    store.offer(link(1, file.clone(), 10)).await.unwrap();
    let linked = store.linked(key(1), at(9)).await.unwrap().unwrap();
    assert_eq!(linked.content_type.as_deref(), Some("image/png"));
    assert_eq!(follow(store, 1, 9).await, Some(file));
    assert_eq!(follow(store, 1, 10).await, None);
    assert_eq!(follow(store, 2, 0).await, None);
    assert!(!store.expire_links(at(9)).await.unwrap());
    assert!(store.expire_links(at(10)).await.unwrap());
    assert!(!store.expire_links(at(10)).await.unwrap());
    assert_eq!(follow(store, 1, 0).await, None);
    // One secret is never given twice.
    store.offer(link(3, bytes("a"), 10)).await.unwrap();
    assert!(store.offer(link(3, bytes("b"), 10)).await.is_err());
}

async fn a_file_is_given_in_pieces(backend: &mut Backend) {
    let store = backend.store();
    for (number, length) in [(1, PIECE_BYTES), (2, PIECE_BYTES * 2 + 1)] {
        let all: Vec<u8> = (0..=250).cycle().take(length).collect();
        let file = NewFile::Ours(all.into());
        store.offer(link(number, file.clone(), 10)).await.unwrap();
        assert_eq!(follow(store, number, 0).await, Some(file));
    }
    let linked = store.linked(key(2), at(0)).await.unwrap().unwrap();
    let LinkedFile::Ours { hash, .. } = linked.file else {
        panic!("{linked:?}");
    };
    let last = store.piece(hash, 2).await.unwrap();
    assert_eq!(last.map(|piece| piece.len()), Some(1));
    assert!(store.expire_links(at(10)).await.unwrap());
    assert_eq!(store.piece(hash, 0).await.unwrap(), None);
}

async fn a_link_to_what_came_says_where_it_is(backend: &mut Backend) {
    let store = backend.store();
    let file = FileAtTwilio {
        account: account(),
        slot: TokenSlot::Secondary,
        message: sid(7),
        media: "ME00000000000000000000000000000001".parse().unwrap(),
    };
    let odd = Some("te\0xt/\u{1}".to_owned());
    let made = NewLink {
        content_type: odd.clone(),
        ..link(1, NewFile::AtTwilio(file.clone()), 10)
    };
    store.offer(made).await.unwrap();
    let linked = store.linked(key(1), at(0)).await.unwrap().unwrap();
    let expected = (LinkedFile::AtTwilio(file), odd);
    assert_eq!((linked.file, linked.content_type), expected);
    assert!(store.expire_links(at(10)).await.unwrap());
}

async fn equal_files_are_kept_once_and_as_long_as_the_longest_link(backend: &mut Backend) {
    let store = backend.store();
    store.offer(link(1, bytes("same"), 10)).await.unwrap();
    store.offer(link(2, bytes("same"), 30)).await.unwrap();
    store.offer(link(3, bytes("same"), 20)).await.unwrap();
    while store.expire_links(at(20)).await.unwrap() {}
    assert_eq!(follow(store, 2, 20).await, Some(bytes("same")));
    assert_eq!(follow(store, 3, 0).await, None);
    while store.expire_links(at(30)).await.unwrap() {}
    assert_eq!(follow(store, 2, 0).await, None);
}

async fn a_purged_user_leaves_no_link_and_no_file(backend: &mut Backend) {
    let store = backend.store();
    converse(store, from(&[ANA], 1)).await;
    converse(store, from(&[BEN], 2)).await;
    for (number, file, message) in [
        (1, "hers", 1),
        (2, "both", 1),
        (3, "both", 2),
        (4, "his", 2),
    ] {
        let link = NewLink {
            message: Some(sid(message)),
            ..link(number, bytes(file), 10)
        };
        store.offer(link).await.unwrap();
    }
    store.purge_user(&ANA.into(), false).await.unwrap();
    assert_eq!(follow(store, 1, 0).await, None);
    assert_eq!(follow(store, 2, 0).await, None);
    assert_eq!(follow(store, 3, 0).await, Some(bytes("both")));
    assert_eq!(follow(store, 4, 0).await, Some(bytes("his")));
    store.forget_all().await.unwrap();
    assert_eq!(follow(store, 4, 0).await, None);
    assert!(!store.expire_links(at(99)).await.unwrap());
}

async fn links_outlive_a_crash_and_are_followed_on_every_machine(backend: &mut Backend) {
    backend
        .store()
        .offer(link(1, bytes("file"), 10))
        .await
        .unwrap();
    if backend.kind == Kind::Memory {
        return;
    }
    #[cfg(feature = "postgres")]
    if backend.kind == Kind::Postgres {
        let other = backend.another();
        other.open(Access::Owner).await.unwrap();
        assert_eq!(follow(&*other, 1, 0).await, Some(bytes("file")));
        other.offer(link(2, bytes("file"), 20)).await.unwrap();
        assert_eq!(follow(backend.store(), 2, 0).await, Some(bytes("file")));
    }
    assert!(backend.crash().await);
    assert_eq!(follow(backend.store(), 1, 0).await, Some(bytes("file")));
}

/// What the key makes of one secret: all that can be seen of it.
fn tag(store: &dyn Store) -> [u8; LINK_TAG_BYTES] {
    store.link_signing_key().unwrap().tag(&[7; 32])
}

async fn signing_key_survives_crash_and_deletion_of_content(backend: &mut Backend) {
    let closed = backend.another();
    let error = closed.link_signing_key().unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::NotOpen);
    let before = tag(backend.store());
    converse(backend.store(), from(&[ANA], 1)).await;
    backend.store().purge_user(&ANA.into(), true).await.unwrap();
    backend.store().forget_all().await.unwrap();
    assert_eq!(tag(backend.store()), before);
    if backend.crash().await {
        assert_eq!(tag(backend.store()), before);
        // A command beside the server reads the same key.
        let command = backend.another();
        command.open(Access::Operator).await.unwrap();
        assert_eq!(tag(&*command), before);
    }
    // The key is random: another store has another one.
    let other = SqliteStore::memory();
    other.open(Access::Owner).await.unwrap();
    assert_ne!(tag(&other), before);
}

async fn signing_key_of_two_stores_that_open_together_is_one(backend: &mut Backend) {
    match backend.kind {
        Kind::Memory => {}
        // An SQLite file has one server; a command may open it while that starts.
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
            one.offer(link(1, bytes("file"), 10)).await.unwrap();
            assert_eq!(follow(&*two, 1, 0).await, Some(bytes("file")));
        }
    }
}
