//! A message that no change has caused: it goes the way of all messages.

use uuid::Uuid;

use super::outbox_tables;
use super::rows::query;
use crate::core::definitions::event::test_event_key;
use crate::core::error::{Error, Kind};
use crate::pg::append::{self, OutboxRow};
use crate::pg::owner::as_owner;
use crate::pg::report::raise;
use crate::pg::{clock, session};

/// Places within a flush; see `capture::buffer`.
const PLACE_BITS: u32 = 20;

const URLS: &str = "
select u.url
from webhook.url_def u
where u.webhook_key = $1
  and u.dropped_at is null
order by u.position";

/// Puts a test message of this webhook into the outbox; returns the URLs it goes to. The
/// worker makes the body, so that the outbox never holds the token.
pub fn put(webhook_key: i32, message_id: Uuid) -> Vec<String> {
    let Some(tables) = outbox_tables::current() else {
        raise(no_extension());
    };
    let (source, actor) = (session::source(), session::actor());
    let row = OutboxRow {
        id: append::next_value(tables.flush_sequence) << PLACE_BITS,
        message_id: message_id.as_bytes(),
        event_key: test_event_key(webhook_key),
        webhook_key,
        captured_at: clock::now(),
        source: (!source.is_empty()).then(|| source.as_bytes()),
        actor: actor.as_deref().map(str::as_bytes),
        changed: None,
        record: Some(b""),
        old_record: None,
    };
    append::append(outbox_tables::current_outbox, std::iter::once(row), false);
    as_owner(|| query(URLS, &[webhook_key.into()], |row| row.value(1)))
}

fn no_extension() -> Error {
    Error::new(
        Kind::NotInPrerequisiteState,
        "the extension webhook_ext is not installed in this database",
    )
    .with_hint("CREATE EXTENSION webhook_ext")
}
