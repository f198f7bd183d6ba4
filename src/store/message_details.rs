//! What `webhook.message` shows: one message, its definition, and each URL that it is for.
//!
//! As the extension's owner, and reads only, so that a standby answers, too.

use pgrx::datum::TimestampWithTimeZone;
use pgrx::Uuid;
use zeroize::Zeroizing;

use super::rows::first;
use crate::pg::owner::as_owner;
use crate::pg::text::JsonText;

/// A message that the outbox still holds.
pub struct MessageRow {
    pub xid: i64,
    pub id: i64,
    pub webhook_key: i32,
    pub event_key: i32,
    pub webhook_id: Option<String>,
    pub webhook_name: Option<String>,
    /// `None`: a test message.
    pub event_id: Option<String>,
    pub event_type: Option<String>,
    pub object_name: Option<String>,
    pub event_date: TimestampWithTimeZone,
    /// Microseconds since 2000-01-01 UTC.
    pub event_date_micros: i64,
    pub source: Option<String>,
    pub actor: Option<String>,
    pub status: String,
    /// As stored: `OrderKeys`, then a list of names or an `Oversize`.
    pub changed: Option<String>,
    pub has_record: bool,
    /// Of both records.
    pub stored_bytes: i64,
}

/// The row as it was captured.
pub struct Records {
    pub record: Option<String>,
    pub old_record: Option<String>,
    /// The same as JSON that jsonb holds.
    pub record_json: Option<JsonText>,
    pub old_record_json: Option<JsonText>,
}

/// What the body and headers of its calls are made of now.
pub struct Definition {
    pub event_is_there: bool,
    pub payload_template: Option<String>,
    /// The trigger fields by their present names.
    pub object_fields: Option<Vec<String>>,
    /// `None`: the webhook was dropped.
    pub secret: Option<Zeroizing<String>>,
    pub headers: String,
    /// When webhook, event or secret was changed last, if that was after the moment asked for.
    pub changed_at: Option<String>,
}

/// The last call that the log has.
pub struct LastCall {
    pub call_id: Uuid,
    pub attempt: i32,
    /// Seconds since 1970-01-01 UTC.
    pub called_at_s: i64,
    pub called_at: TimestampWithTimeZone,
}

/// Longer texts than honest ones are passed over, as the worker does.
const MESSAGE: &str = "
select o.xid::pg_catalog.text::pg_catalog.int8, o.id, o.webhook_key, o.event_key,
       w.id, w.name, e.id,
       case when o.event_key < 0 then 'webhook.test' else e.event_type end,
       e.object_text, o.captured_at,
       (extract(epoch from o.captured_at - '2000-01-01 00:00:00+00'::pg_catalog.timestamptz) * 1000000)::pg_catalog.int8,
       case when pg_catalog.octet_length(o.source) <= 1024 then o.source end,
       case when pg_catalog.octet_length(o.actor) <= 256 then o.actor end,
       (select m.status from webhook.messages m where m.message_id = $1 limit 1),
       case when pg_catalog.octet_length(o.changed) <= 1048576 then o.changed end,
       o.record is not null,
       coalesce(pg_catalog.octet_length(o.record), 0)::pg_catalog.int8
           + coalesce(pg_catalog.octet_length(o.old_record), 0)
from webhook_internal.outbox o
left join webhook.webhook_def w on w.webhook_key = o.webhook_key
left join webhook_internal.event_label e on e.event_key = o.event_key
where o.message_id = $1
limit 1";

/// A test message has no row, and its record is empty.
const RECORDS: &str = "
select o.record, o.old_record,
       webhook_internal.stored_json(nullif(o.record, '')), webhook_internal.stored_json(nullif(o.old_record, ''))
from webhook_internal.outbox o
where o.message_id = $1
limit 1";

/// $1 webhook, $2 event, $3 the moment.
const DEFINITION: &str = "
select e.event_key is not null, e.payload_template,
       webhook.present_columns(e.object_name, e.object_oid, e.object_fields, e.object_attnums),
       s.secret, w.headers::pg_catalog.text,
       case
           when greatest(w.modified_at, e.modified_at, s.created_at) > $3
           then greatest(w.modified_at, e.modified_at, s.created_at)::pg_catalog.text
       end
from webhook.webhook_def w
left join webhook.event_def e on e.event_key = $2
left join lateral (
    select d.secret, d.created_at
    from webhook.secret_def d
    where d.webhook_key = w.webhook_key
      and d.expires_at is null
    order by d.created_at desc
    limit 1
) s on true
where w.webhook_key = $1";

const LAST_CALL: &str = "
select c.call_id, c.attempt, pg_catalog.floor(extract(epoch from c.called_at))::pg_catalog.int8, c.called_at
from webhook_internal.call_log c
where c.message_id = $1
order by c.called_at desc
limit 1";

/// $1 xid, $2 id, $3 webhook, $4 message, $5 when it was captured, $6 whether URLs and errors are shown as they
/// are. The states are those of `webhook.messages`, for each URL by itself. A URL that came after the message is not
/// one of its URLs, unless the message was sent there or waits for it. The next attempt is the earliest moment, as in
/// `webhook.queue`; null where something else has to happen first.
const DELIVERIES: &str = "
select coalesce(
           pg_catalog.jsonb_agg(
               pg_catalog.jsonb_build_object(
                   'outgoingUrl', case when $6 then d.url else webhook_internal.masked_url(d.url) end,
                   'state', d.state,
                   'attempts', d.attempts,
                   'nextAttemptAt',
                   case
                       when d.state in ('pending', 'retrying') and not d.is_held and d.next_at is distinct from 'infinity'
                       then greatest(
                           pg_catalog.statement_timestamp(),
                           d.next_at,
                           case
                               when d.lane ->> 'state' in ('backing_off', 'throttled')
                               then (d.lane ->> 'next')::pg_catalog.timestamptz
                           end
                       )
                   end,
                   'givenUpAt',
                   case
                       when d.state = 'failed' then d.changed_at
                       when d.state in ('pending', 'retrying', 'sending')
                       then d.accepted_at + least(d.max_age, '10000 years'::pg_catalog.interval)
                   end
               )
               order by d.position, d.url_key
           ),
           '[]'
       )
from (
    select u.url_key, u.position, u.url, c.attempts, r.next_at, r.changed_at,
           coalesce(r.accepted_at, $5) as accepted_at,
           w.max_age,
           n.state as lane,
           w.paused or u.disabled_at is not null or w.detail is not null
               or coalesce(n.state ->> 'state' = 'blocked', false)
               or (select webhook_internal.delivery_hold()) is not null as is_held,
           case
               when q.state in ('pending', 'retrying', 'sending') and (w.dropped_at is not null or u.dropped_at is not null)
               then 'canceled'
               else q.state
           end as state
    from webhook.url_def u
    join webhook.webhook_def w on w.webhook_key = u.webhook_key
    left join webhook_internal.place p on p.webhook_key = $3 and p.url_key = u.url_key
    left join webhook_internal.lane_now n on n.webhook_key = $3 and n.url_key = u.url_key
    left join (
        select y.url_key, y.is_listed, y.is_canceled
        from webhook_internal.busy y
        where y.xid = $1::pg_catalog.text::pg_catalog.xid8
          and y.id = $2
    ) b on b.url_key = u.url_key
    left join webhook_internal.retry r
      on r.message_id = $4
     and r.url_key = u.url_key
    cross join lateral (
        select coalesce(
                   pg_catalog.jsonb_agg(
                       pg_catalog.jsonb_build_object(
                           'at', l.called_at,
                           'attempt', l.attempt,
                           'callId', l.call_id,
                           'httpCode', l.http_code,
                           'durationMs', l.duration_ms,
                           'detail', case when $6 then l.detail else webhook_internal.masked_url(l.detail) end
                       )
                       order by l.called_at
                   ),
                   '[]'
               ) as attempts,
               pg_catalog.count(*) as calls,
               pg_catalog.bool_or(l.success) as is_delivered
        from webhook_internal.call_log l
        where l.message_id = $4
          and l.url_key = u.url_key
    ) c
    cross join lateral (
        select not (
                   pg_catalog.pg_visible_in_snapshot($1::pg_catalog.text::pg_catalog.xid8, p.taken_before)
                   or (pg_catalog.pg_visible_in_snapshot($1::pg_catalog.text::pg_catalog.xid8, p.taken_within)
                       and $2 <= p.taken_up_to)
               ) as is_ahead
    ) t
    cross join lateral (
        select case
                   when not b.is_listed then 'sending'
                   when r.state = 'failed' then 'failed'
                   when r.state = 'waiting' then case when r.attempts > 0 then 'retrying' else 'pending' end
                   when not b.is_canceled then 'pending'
                   when r.state in ('canceled', 'canceling') then 'canceled'
                   when t.is_ahead
                   then case
                            when pg_catalog.pg_visible_in_snapshot($1::pg_catalog.text::pg_catalog.xid8, p.canceled_before)
                            then 'canceled'
                            else 'pending'
                        end
                   when b.is_canceled then 'canceled'
                   when r.state is distinct from 'delivered' and exists (
                       select
                       from webhook_internal.cancellation k
                       where k.url_key = u.url_key
                         and pg_catalog.pg_visible_in_snapshot($1::pg_catalog.text::pg_catalog.xid8, k.before)
                         and not (
                             pg_catalog.pg_visible_in_snapshot($1::pg_catalog.text::pg_catalog.xid8, k.taken_before)
                             or (pg_catalog.pg_visible_in_snapshot($1::pg_catalog.text::pg_catalog.xid8, k.taken_within)
                                 and $2 <= k.taken_up_to)
                         )
                         and not k.in_flight @> pg_catalog.jsonb_build_array(
                             pg_catalog.jsonb_build_array($1::pg_catalog.text, $2::pg_catalog.text)
                         )
                   )
                   then 'canceled'
                   when u.dropped_at is not null and c.is_delivered is not true then 'canceled'
                   else 'delivered'
               end as state
    ) q
    where u.webhook_key = $3
      and (c.calls > 0
           or r.state is not null
           or q.state in ('pending', 'sending')
           or u.created_at <= $5 and (u.dropped_at is null or u.dropped_at > $5))
) d";

/// The message, unless it never was or is past retention.
pub fn find(message_id: Uuid) -> Option<MessageRow> {
    as_owner(|| {
        first(MESSAGE, &[message_id.into()], |row| MessageRow {
            xid: row.value(1),
            id: row.value(2),
            webhook_key: row.value(3),
            event_key: row.value(4),
            webhook_id: row.get(5),
            webhook_name: row.get(6),
            event_id: row.get(7),
            event_type: row.get(8),
            object_name: row.get(9),
            event_date: row.value(10),
            event_date_micros: row.value(11),
            source: row.get(12),
            actor: row.get(13),
            status: row.get(14).unwrap_or_default(),
            changed: row.get(15),
            has_record: row.value(16),
            stored_bytes: row.value(17),
        })
    })
}

pub fn records(message_id: Uuid) -> Option<Records> {
    as_owner(|| {
        first(RECORDS, &[message_id.into()], |row| Records {
            record: row.get(1),
            old_record: row.get(2),
            record_json: row.get(3),
            old_record_json: row.get(4),
        })
    })
}

/// `None` if the webhook has no row at all.
pub fn definition(message: &MessageRow, since: TimestampWithTimeZone) -> Option<Definition> {
    let arguments = [
        message.webhook_key.into(),
        message.event_key.into(),
        since.into(),
    ];
    as_owner(|| {
        first(DEFINITION, &arguments, |row| Definition {
            event_is_there: row.value(1),
            payload_template: row.get(2),
            object_fields: row.get(3),
            secret: row.get(4).map(Zeroizing::new),
            headers: row.value(5),
            changed_at: row.get(6),
        })
    })
}

pub fn last_call(message_id: Uuid) -> Option<LastCall> {
    as_owner(|| {
        first(LAST_CALL, &[message_id.into()], |row| LastCall {
            call_id: row.value(1),
            attempt: row.value(2),
            called_at_s: row.value(3),
            called_at: row.value(4),
        })
    })
}

/// Each URL of the message. `unmasked`: URLs and errors as they are.
pub fn deliveries(message_id: Uuid, message: &MessageRow, unmasked: bool) -> JsonText {
    let arguments = [
        message.xid.into(),
        message.id.into(),
        message.webhook_key.into(),
        message_id.into(),
        message.event_date.into(),
        unmasked.into(),
    ];
    as_owner(|| first(DELIVERIES, &arguments, |row| row.value(1))).expect("an aggregate is one row")
}
