//! The statements that read whole messages, and how a row becomes one.

use super::StoredMessage;
use crate::core::messages::order_keys::OrderKeys;
use crate::core::messages::position::MessagePosition;
use crate::pg::spi::Row;

/// Bytes of record and old record together.
macro_rules! size {
    ($alias:literal) => {
        concat!(
            "(pg_catalog.octet_length(",
            $alias,
            ".record) + coalesce(pg_catalog.octet_length(",
            $alias,
            ".old_record), 0))"
        )
    };
}

/// What of a page's budget a row takes with its long texts; null if it has no record.
macro_rules! held {
    ($alias:literal) => {
        concat!(
            "(",
            size!($alias),
            "::pg_catalog.int8 + coalesce(pg_catalog.octet_length(",
            $alias,
            ".changed), 0))"
        )
    };
}

/// A text that is longer than an honest one is passed over: pages stay small in memory.
macro_rules! bounded {
    ($alias:literal, $column:literal, $bytes:literal) => {
        concat!(
            "case when pg_catalog.octet_length(",
            $alias,
            ".",
            $column,
            ") <= ",
            $bytes,
            " then ",
            $alias,
            ".",
            $column,
            " end"
        )
    };
}

/// A long text comes with all others of its row or, where they are too long for a page, later.
macro_rules! inlined {
    ($alias:literal, $inline:literal, $text:expr) => {
        concat!(
            "case when ",
            held!($alias),
            " <= ",
            $inline,
            " then ",
            $text,
            " end"
        )
    };
}

/// The columns are read by `stored_message`, by place. Without a record, `changed` may say why. A
/// source has 200 characters at most, a role's name 63 bytes.
macro_rules! columns {
    ($alias:literal, $inline:literal) => {
        concat!(
            $alias,
            ".xid, ",
            $alias,
            ".id, ",
            $alias,
            ".message_id, ",
            $alias,
            ".event_key, ",
            $alias,
            ".webhook_key, ",
            $alias,
            ".captured_at, ",
            size!($alias),
            ", ",
            inlined!($alias, $inline, concat!($alias, ".record")),
            ", ",
            inlined!($alias, $inline, concat!($alias, ".old_record")),
            ", case when ",
            $alias,
            ".record is null then ",
            bounded!($alias, "changed", "256"),
            " else ",
            inlined!($alias, $inline, bounded!($alias, "changed", "1048576")),
            " end, ",
            bounded!($alias, "source", "1024"),
            ", ",
            bounded!($alias, "actor", "256"),
            // OrderKeys, whether or not the rest comes now.
            ", case when pg_catalog.left(",
            $alias,
            ".changed, 1) = 'k' then pg_catalog.left(",
            $alias,
            ".changed, 34) end"
        )
    };
}

/// $1 xmax and $2 running ids of the window's start, $3 xmax and $4 running ids of its end,
/// $5 id after which, $6 webhook or 0, $7 inline bytes, $8 limit.
pub(super) const WINDOW_PAGE: &str = concat!(
    "select ",
    columns!("o", "$7"),
    " from webhook_internal.outbox o ",
    "where o.xid >= $1 and o.xid < $3 and not (o.xid = any ($4)) and o.id > $5 ",
    "and ($6 = 0 or o.webhook_key = $6) ",
    "union all select ",
    columns!("o", "$7"),
    " from webhook_internal.outbox o ",
    "where o.xid = any ($2) and o.xid < $3 and not (o.xid = any ($4)) and o.id > $5 ",
    "and ($6 = 0 or o.webhook_key = $6) limit $8"
);

/// $1 ids of transactions and $2 flush numbers side by side, $3 id after which, $4 webhook
/// or 0, $5 inline bytes, $6 limit.
pub(super) const FLUSH_ROWS: &str = concat!(
    "select ",
    columns!("r", "$5"),
    " from rows from (pg_catalog.unnest($1), pg_catalog.unnest($2)) as f (xid, flush) ",
    "cross join lateral (select * from webhook_internal.outbox o ",
    "where o.xid = f.xid and o.id >= f.flush << 20 and o.id < (f.flush + 1) << 20 and o.id > $3 ",
    "and ($4 = 0 or o.webhook_key = $4) order by o.id limit $6) r"
);

/// All rows of a stretch that has only small flushes. $1 and $2 first and last transactions, $3 ids
/// that run at the window's end, $4 id after which, $5 webhook or 0, $6 and $7 first and end of the
/// flush numbers, $8 xmax and $9 running ids of the window's start, $10 inline bytes.
pub(super) const STRETCH_ROWS: &str = concat!(
    "select ",
    columns!("s", "$10"),
    " from rows from (pg_catalog.unnest($1), pg_catalog.unnest($2)) as r (first, last) ",
    // Range by range: joined in another order, each call would read the whole index.
    "cross join lateral (select * from webhook_internal.outbox o ",
    "where o.xid >= r.first and o.xid <= r.last ",
    "and (o.xid >= $8 or o.xid = any ($9)) and not (o.xid = any ($3)) and o.id > $4 ",
    "and ($5 = 0 or o.webhook_key = $5) and o.id >= $6 << 20 and o.id < $7 << 20 offset 0) s"
);

/// $1 and $2 positions side by side, $3 inline bytes.
pub(super) const BY_POSITION: &str = concat!(
    "select ",
    columns!("o", "$3"),
    " from rows from (pg_catalog.unnest($1), pg_catalog.unnest($2)) as c (xid, id) ",
    "join webhook_internal.outbox o on o.xid = c.xid and o.id = c.id"
);

/// `None` for a row that is not whole, which the outbox does not hold.
pub(super) fn stored_message(row: &Row<'_>) -> Option<StoredMessage> {
    let keys = row.text(12);
    let (keys, _) = OrderKeys::split(keys.as_deref().unwrap_or_default());
    Some(StoredMessage {
        at: MessagePosition {
            xid: row.xid(0)?,
            id: row.i64(1)?,
        },
        message_id: row.uuid(2)?,
        event_key: row.i32(3)?,
        webhook_key: row.i32(4)?,
        captured_at: row.i64(5)?,
        size: row.i32(6).unwrap_or(0),
        has_record: row.i32(6).is_some(),
        record: row.text(7),
        old_record: row.text(8),
        changed: row.text(9).and_then(without_keys),
        keys,
        source: row.text(10),
        actor: row.text(11),
        accepted_at: None,
    })
}

/// The list of changed fields alone, if there is one.
fn without_keys(stored: String) -> Option<String> {
    let (keys, rest) = OrderKeys::split(&stored);
    if keys.is_empty() {
        return Some(stored);
    }
    (!rest.is_empty()).then(|| rest.to_owned())
}
