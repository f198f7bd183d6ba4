//! Who changed what, for `webhook.changes`.
//!
//! As the extension's owner, in the transaction of the change; what a superuser edits by hand is not
//! in it. Secrets are never written, and values of headers that look like credentials are masked.
//! Rows about a definition are kept as long as it lives, all others for `webhook.log_retention`.

use pgrx::JsonB;
use serde_json::Value;

use super::rows::{execute, first, first_with};
use super::version;
use crate::pg::local_settings::with_settings;
use crate::pg::owner::as_owner;

/// What a webhook is; `w` is its row.
macro_rules! webhook_state {
    () => {
        "
       jsonb_build_object(
           'name', w.name,
           'description', w.description,
           'outgoing_urls', (
               select coalesce(jsonb_agg(u.url order by u.position), '[]')
               from webhook.url_def u
               where u.webhook_key = w.webhook_key and u.dropped_at is null
           ),
           'disabled_urls', (
               select coalesce(jsonb_agg(u.url order by u.position), '[]')
               from webhook.url_def u
               where u.webhook_key = w.webhook_key and u.dropped_at is null and u.disabled_at is not null
           ),
           'call_throttling', w.call_throttling,
           'enabled', w.enabled,
           'paused', w.paused,
           'headers', webhook_internal.masked_headers(w.headers),
           'timeout_ms', w.timeout_ms,
           'max_attempts', w.max_attempts,
           'max_age', w.max_age,
           'max_in_flight', w.max_in_flight,
           'delivery_order', w.delivery_order,
           'log_level', w.log_level,
           'disable_after', w.disable_after
       )"
    };
}

/// What an event is; `e` is its row.
macro_rules! event_state {
    () => {
        "
       jsonb_build_object(
           'event_type', e.event_type,
           'object_name', (select b.object_text from webhook_internal.event_label b where b.event_key = e.event_key),
           'object_fields', e.object_fields,
           'event_sources', e.event_sources,
           'payload_fields', e.payload_fields,
           'payload_template', e.payload_template,
           'condition', e.condition,
           'match', e.match,
           'order_key', e.order_key,
           'enabled', e.enabled,
           'null_style', e.null_style,
           'list_style', e.list_style,
           'owner', e.owner_name
       )"
    };
}

/// Of `s.old` and `s.new` the members that differ, and those named in $4. Of a new definition what it has: each
/// keeps a row as long as it lives.
macro_rules! difference {
    () => {
        "
cross join lateral (
    select (
               select jsonb_object_agg(o.key, o.value)
               from jsonb_each(s.old) o
               where o.key = any ($4) or s.new -> o.key is distinct from o.value
           ) as old,
           (
               select jsonb_object_agg(n.key, n.value)
               from jsonb_each(s.new) n
               where n.key = any ($4)
                  or case when s.old is null then n.value <> 'null' else s.old -> n.key is distinct from n.value end
           ) as new
) d
where d.old is not null
   or d.new is not null
returning true"
    };
}

const WEBHOOK_STATE: &str = concat!(
    "select",
    webhook_state!(),
    "::text from webhook.webhook_def w where w.webhook_key = $1"
);

const EVENT_STATE: &str = concat!(
    "select",
    event_state!(),
    "::text from webhook.event_def e where e.event_key = $1"
);

/// $1 webhook, $2 by whom, $3 action; `passed` has the state before, or null.
const WEBHOOK_CHANGED: &str = concat!(
    "
insert into webhook_internal.change_log (changed_by, action, kind, id, name, webhook_id, webhook_key, is_kept, old, new)
select $2, $3, 'webhook', s.id, s.name, s.id, s.webhook_key, true, d.old, d.new
from (
    select w.id, w.name, w.webhook_key, p.value::jsonb as old,",
    webhook_state!(),
    " as new
    from webhook.webhook_def w
    cross join passed p
    where w.webhook_key = $1
) s",
    difference!()
);

/// $1 event; else the same.
const EVENT_CHANGED: &str = concat!(
    "
insert into webhook_internal.change_log (changed_by, action, kind, id, name, webhook_id, webhook_key, event_key, is_kept, old, new)
select $2, $3, 'event', s.id, s.name, s.webhook_id, s.webhook_key, s.event_key, true, d.old, d.new
from (
    select e.id, w.name, w.id as webhook_id, e.webhook_key, e.event_key, p.value::jsonb as old,",
    event_state!(),
    " as new
    from webhook.event_def e
    join webhook.webhook_def w on w.webhook_key = e.webhook_key
    cross join passed p
    where e.event_key = $1
) s",
    difference!()
);

const EVENT_KEY: &str = "
select event_key from webhook.event_def where id = $1";

/// The events of a webhook that a change of its status changes.
const EVENTS_ENABLED: &str = "
insert into webhook_internal.change_log (changed_by, action, kind, id, name, webhook_id, webhook_key, event_key, is_kept, old, new)
select $3, 'update', 'event', e.id, w.name, w.id, e.webhook_key, e.event_key, true,
       jsonb_build_object('enabled', e.enabled), jsonb_build_object('enabled', $2)
from webhook.event_def e
join webhook.webhook_def w on w.webhook_key = e.webhook_key
where e.webhook_key = $1
  and e.dropped_at is null
  and e.enabled <> $2";

const WEBHOOK_DROPPED: &str = concat!(
    "
insert into webhook_internal.change_log (changed_by, action, kind, id, name, webhook_id, webhook_key, is_kept, old)
select $2, 'drop', 'webhook', w.id, w.name, w.id, w.webhook_key, false,
       (
           select jsonb_object_agg(o.key, o.value)
           from jsonb_each(",
    webhook_state!(),
    ") o
           where o.value <> 'null'
       )
from webhook.webhook_def w
where w.webhook_key = $1"
);

const EVENTS_DROPPED: &str = concat!(
    "
insert into webhook_internal.change_log (changed_by, action, kind, id, name, webhook_id, webhook_key, event_key, is_kept, old)
select $2, 'drop', 'event', e.id, w.name, w.id, e.webhook_key, e.event_key, false,
       (
           select jsonb_object_agg(o.key, o.value)
           from jsonb_each(",
    event_state!(),
    ") o
           where o.value <> 'null'
       )
from webhook.event_def e
join webhook.webhook_def w on w.webhook_key = e.webhook_key
where e.event_key = any ($1)"
);

const LET_WEBHOOK_EXPIRE: &str = "
update webhook_internal.change_log
set is_kept = false
where webhook_key = $1
  and is_kept";

const LET_EVENTS_EXPIRE: &str = "
update webhook_internal.change_log
set is_kept = false
where event_key = any ($1)
  and is_kept
  and event_key is not null";

/// $1 by whom, $2 action, $3 kind, $4 id unless it is that of the webhook, $5 webhook, $6 what of it.
const HAPPENED: &str = "
insert into webhook_internal.change_log (changed_by, action, kind, id, name, webhook_id, webhook_key, is_kept, new)
select $1, $2, $3, coalesce($4, w.id), w.name, w.id, w.webhook_key, false, $6
from (values (true)) as one (row)
left join webhook.webhook_def w on w.webhook_key = $5";

/// $1 microseconds, $2 at most so many.
const FORGET: &str = "
delete from webhook_internal.change_log
where change_id = any (array(
          select c.change_id
          from webhook_internal.change_log c
          where not c.is_kept
            and c.changed_at < pg_catalog.clock_timestamp() - $1 * '1 microsecond'::pg_catalog.interval
          order by c.changed_at
          limit $2
      ))
returning true";

/// A definition as it was before a change, as JSON.
pub struct State(String);

/// What a role does to a definition that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Update,
    Pause,
    Resume,
}

impl Action {
    fn as_str(self) -> &'static str {
        match self {
            Self::Update => "update",
            Self::Pause => "pause",
            Self::Resume => "resume",
        }
    }

    /// A pause of a webhook that is paused is something that was done, too.
    fn always_shown(self) -> Vec<String> {
        match self {
            Self::Update => Vec::new(),
            Self::Pause | Self::Resume => vec!["paused".to_owned()],
        }
    }
}

impl State {
    /// Of a webhook.
    fn name(&self) -> String {
        let state: Value = serde_json::from_str(&self.0).unwrap_or_default();
        state["name"].as_str().unwrap_or_default().to_owned()
    }
}

/// What switches something off or on is also a line of the server log, where it is looked for first.
fn report(what: &str, by: &str) {
    pgrx::log!("{what} by role \"{by}\"");
}

/// As the owner. Intervals are written in one way, whatever the session's style.
fn as_logger<T>(f: impl FnOnce() -> T) -> T {
    as_owner(|| with_settings(&[(c"intervalstyle", "postgres")], f))
}

pub fn webhook_state(webhook_key: i32) -> State {
    let state = as_logger(|| first(WEBHOOK_STATE, &[webhook_key.into()], |row| row.value(1)));
    State(state.unwrap_or_default())
}

pub fn event_state(event_key: i32) -> State {
    let state = as_logger(|| first(EVENT_STATE, &[event_key.into()], |row| row.value(1)));
    State(state.unwrap_or_default())
}

pub fn webhook_created(webhook_key: i32, by: &str) {
    changed(WEBHOOK_CHANGED, webhook_key, "create", None, Vec::new(), by);
}

/// The event with this id.
pub fn event_created(id: &str, by: &str) {
    let key = as_logger(|| first(EVENT_KEY, &[id.into()], |row| row.value::<i32>(1)));
    if let Some(key) = key {
        changed(EVENT_CHANGED, key, "create", None, Vec::new(), by);
    }
}

/// Nothing is written if nothing differs. `headers_differ`: although it may not be seen.
pub fn webhook_changed(
    webhook_key: i32,
    action: Action,
    before: &State,
    headers_differ: bool,
    by: &str,
) {
    match action {
        Action::Update => {}
        Action::Pause => report(&format!("webhook \"{}\" is paused", before.name()), by),
        Action::Resume => report(&format!("webhook \"{}\" is resumed", before.name()), by),
    }
    let mut shown = action.always_shown();
    if headers_differ {
        shown.push("headers".to_owned());
    }
    let action = action.as_str();
    changed(
        WEBHOOK_CHANGED,
        webhook_key,
        action,
        Some(before),
        shown,
        by,
    );
}

/// Nothing is written if nothing differs.
pub fn event_changed(event_key: i32, before: &State, by: &str) {
    changed(
        EVENT_CHANGED,
        event_key,
        "update",
        Some(before),
        Vec::new(),
        by,
    );
}

fn changed(
    statement: &str,
    key: i32,
    action: &str,
    before: Option<&State>,
    shown: Vec<String>,
    by: &str,
) {
    let arguments = [key.into(), by.into(), action.into(), shown.into()];
    let before = before.map(|state| state.0.as_str());
    as_logger(|| first_with(statement, &arguments, before, |_| ()));
}

/// Before the events of a webhook are all switched on or off.
pub fn events_enabled(webhook_key: i32, enabled: bool, by: &str) {
    let what = if enabled { "on" } else { "off" };
    let name = webhook_state(webhook_key).name();
    report(
        &format!("all events of webhook \"{name}\" are switched {what}"),
        by,
    );
    let arguments = [webhook_key.into(), enabled.into(), by.into()];
    as_logger(|| execute(EVENTS_ENABLED, &arguments));
}

/// Before it is dropped.
pub fn webhook_dropped(webhook_key: i32, by: &str) {
    let name = webhook_state(webhook_key).name();
    report(&format!("webhook \"{name}\" is dropped"), by);
    as_logger(|| {
        execute(WEBHOOK_DROPPED, &[webhook_key.into(), by.into()]);
        execute(LET_WEBHOOK_EXPIRE, &[webhook_key.into()]);
    });
}

/// Before they are dropped.
pub fn events_dropped(event_keys: &[i32], by: &str) {
    as_logger(|| {
        execute(EVENTS_DROPPED, &[event_keys.to_vec().into(), by.into()]);
        execute(LET_EVENTS_EXPIRE, &[event_keys.to_vec().into()]);
    });
}

/// Something was done to a webhook's messages or secrets.
pub fn webhook_happened(webhook_key: i32, action: &str, details: Value, by: &str) {
    happened(action, "webhook", None, Some(webhook_key), details, by);
}

/// Something was done to one message.
pub fn message_happened(id: uuid::Uuid, webhook_key: i32, action: &str, details: Value, by: &str) {
    let id = Some(id.to_string());
    happened(action, "message", id, Some(webhook_key), details, by);
}

/// The worker was stopped or started by hand, which a schema of any version allows.
pub fn worker_switched(action: &str, by: &str) {
    report(
        &format!("the webhook worker of this database: {action}"),
        by,
    );
    if version::check().is_ok() {
        happened(action, "worker", None, None, Value::Null, by);
    }
}

/// A copy of a database was made the one that sends.
pub fn adopted(details: Value, by: &str) {
    happened("adopt", "database", None, None, details, by);
}

fn happened(
    action: &str,
    kind: &str,
    id: Option<String>,
    webhook_key: Option<i32>,
    details: Value,
    by: &str,
) {
    let arguments = [
        by.into(),
        action.into(),
        kind.into(),
        id.into(),
        webhook_key.into(),
        Some(details)
            .filter(|details| !details.is_null())
            .map(JsonB)
            .into(),
    ];
    as_logger(|| execute(HAPPENED, &arguments));
}

/// Deletes rows that are older than `retention_micros` and about nothing that lives, at most so many;
/// how many there were. For the worker, in a transaction.
pub fn forget(retention_micros: i64, at_most: i64) -> usize {
    super::rows::query(FORGET, &[retention_micros.into(), at_most.into()], |_| ()).len()
}
