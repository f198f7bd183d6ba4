//! Changes of an event that is there.
//!
//! As the extension's owner; the event's row is locked by the statement that found it. What was
//! captured before stays as it was captured.

use pgrx::datum::TimestampWithTimeZone;
use pgrx::pg_sys;

use super::change_log;
use super::event_definitions::MatchParams;
use super::event_matching::CheckedMatch;
use super::rows::{execute, first};
use crate::core::definitions::event::Fields;
use crate::core::error::Result;
use crate::core::payloads::template::CheckedTemplate;
use crate::pg::owner::{as_owner, current_role_oid};

/// What an update has to know of the event.
pub struct Present {
    pub id: String,
    pub webhook_key: i32,
    pub event_type: String,
    /// `None`: the table was dropped.
    pub object: Option<pg_sys::Oid>,
    pub condition: Option<String>,
    pub enabled: bool,
    pub has_trigger: bool,
    pub has_payload_fields: bool,
    pub has_template: bool,
    /// The owner has lost a right on the table, so that the event has stopped.
    pub is_abandoned: bool,
}

/// Checked values; `None` leaves what is there, `Some(None)` takes it away.
pub struct EventChanges {
    pub object_fields: Option<Option<Fields>>,
    pub event_sources: Option<Option<Vec<String>>>,
    pub payload_fields: Option<Option<Fields>>,
    pub payload_template: Option<Option<CheckedTemplate>>,
    pub condition: Option<Option<String>>,
    pub matched: Option<Option<CheckedMatch>>,
    pub order_key: Option<Option<Fields>>,
    pub enabled: Option<bool>,
    pub null_style: Option<&'static str>,
    pub list_style: Option<&'static str>,
}

/// The event as `webhook.update_event` returns it, column by column.
pub type EventRow = (
    String,
    String,
    String,
    Option<String>,
    Option<Vec<String>>,
    Option<Vec<String>>,
    Option<Vec<String>>,
    Option<String>,
    Option<String>,
    bool,
    TimestampWithTimeZone,
    String,
);

const PRESENT: &str = "
select e.id, e.event_type, c.oid, e.condition, e.enabled,
       exists (select from webhook_internal.event_trigger t where t.event_key = e.event_key and t.is_ours),
       e.payload_fields is not null, e.payload_template is not null,
       (select o.lost_rights is not null from webhook_internal.event_owner o where o.event_key = e.event_key),
       e.webhook_key
from webhook.event_def e
left join pg_catalog.pg_class c on c.oid = e.object_name
where e.event_key = $1";

/// Another event of the webhook that this one would be the same as.
const SAME_EVENT: &str = "
select o.id
from webhook.event_def e
join webhook.event_def o on o.webhook_key = e.webhook_key
                        and o.object_name = e.object_name
                        and o.event_type = e.event_type
where e.event_key = $1
  and o.event_key <> e.event_key
  and o.dropped_at is null
  and o.object_fields is not distinct from case when $2 then $3 else e.object_fields end
  and o.event_sources is not distinct from case when $4 then $5 else e.event_sources end
  and o.payload_fields is not distinct from case when $6 then $7 else e.payload_fields end
  and o.payload_template is not distinct from case when $10 then $11 else e.payload_template end
  and o.condition is not distinct from case when $8 then $9 else e.condition end
  and (
          o.match is not distinct from case when $12 then $13 else e.match end
          or o.match_keys is not distinct from case when $12 then $14::pg_catalog.uuid[] else e.match_keys end
      )";

macro_rules! numbers_now {
    ($names:literal) => {
        concat!(
            "case when ",
            $names,
            " is not null then array(",
            " select coalesce((select a.attnum from pg_catalog.pg_attribute a",
            "                  where a.attrelid = e.object_name and a.attname = f.name",
            "                    and a.attnum > 0 and not a.attisdropped), 0)",
            " from pg_catalog.unnest(",
            $names,
            ") with ordinality as f (name, place)",
            " order by f.place) end"
        )
    };
}

/// After a dump and restore the column numbers belong to another table and the owner's OID to
/// another role. A statement that rewrites some of them first looks the others up by name.
/// 0 is a column that is gone.
const RENUMBER: &str = concat!(
    "update webhook.event_def e set object_oid = e.object_name,",
    " owner_oid = (select o.owner_oid from webhook_internal.event_owner o where o.event_key = e.event_key),",
    " owner_name = (select o.owner from webhook_internal.event_owner o where o.event_key = e.event_key),",
    " object_attnums = ",
    numbers_now!("e.object_fields"),
    ", payload_attnums = ",
    numbers_now!("e.payload_fields"),
    ", template_attnums = ",
    numbers_now!("e.template_fields"),
    ", match_attnums = ",
    numbers_now!("e.match_fields"),
    ", order_key_attnums = ",
    numbers_now!("e.order_key"),
    " where e.event_key = $1 and e.object_oid is distinct from e.object_name::pg_catalog.oid",
    " and e.object_name::pg_catalog.oid in (select c.oid from pg_catalog.pg_class c)"
);

const UPDATE: &str = "
update webhook.event_def
set object_fields = case when $2 then $3 else object_fields end,
    object_attnums = case when $2 then $4 else object_attnums end,
    event_sources = case when $5 then $6 else event_sources end,
    payload_fields = case when $7 then $8 else payload_fields end,
    payload_attnums = case when $7 then $9 else payload_attnums end,
    condition = case when $10 then $11 else condition end,
    payload_template = case when $16 then $17 else payload_template end,
    template_fields = case when $16 then $18 else template_fields end,
    template_attnums = case when $16 then $19 else template_attnums end,
    match = case when $20 then $21 else match end,
    match_fields = case when $20 then $22 else match_fields end,
    match_attnums = case when $20 then $23 else match_attnums end,
    match_kinds = case when $20 then $24 else match_kinds end,
    match_group = case when $20 then $25 else match_group end,
    match_keys = case when $20 then $26::pg_catalog.uuid[] else match_keys end,
    order_key = case when $27 then $28 else order_key end,
    order_key_attnums = case when $27 then $29 else order_key_attnums end,
    enabled = coalesce($12, enabled),
    null_style = coalesce($13, null_style),
    list_style = coalesce($14, list_style),
    modified_at = pg_catalog.clock_timestamp(),
    modified_by = $15
where event_key = $1";

const TAKE_OVER: &str = "
update webhook.event_def
set owner_oid = $2,
    owner_name = $3
where event_key = $1";

const AS_IT_IS: &str = "
select e.id, e.webhook_id, e.event_type, e.object_text, e.object_fields_now, e.event_sources,
       e.payload_fields_now, e.payload_template, coalesce(e.condition_now, e.condition), e.enabled, e.created_at,
       e.created_by
from webhook_internal.event_now e
where e.event_key = $1";

/// The event as it is.
pub fn present(event_key: i32) -> Present {
    as_owner(|| {
        first(PRESENT, &[event_key.into()], |row| Present {
            id: row.value(1),
            event_type: row.value(2),
            object: row.get(3),
            condition: row.get(4),
            enabled: row.value(5),
            has_trigger: row.value(6),
            has_payload_fields: row.value(7),
            has_template: row.value(8),
            is_abandoned: row.value(9),
            webhook_key: row.value(10),
        })
    })
    .expect("a locked row does not go away")
}

/// # Errors
/// `42710` if another event of the webhook is what this one would become.
pub fn refuse_duplicate(event_key: i32, changes: &EventChanges) -> Result<()> {
    let names = |fields: &Option<Option<Fields>>| {
        let fields = fields.as_ref().and_then(Option::as_ref);
        fields.map(|fields| fields.names.clone())
    };
    let template = changes.payload_template.as_ref().and_then(Option::as_ref);
    let matched = changes.matched.as_ref().and_then(Option::as_ref);
    let same: Option<String> = as_owner(|| {
        first(
            SAME_EVENT,
            &[
                event_key.into(),
                changes.object_fields.is_some().into(),
                names(&changes.object_fields).into(),
                changes.event_sources.is_some().into(),
                changes.event_sources.clone().flatten().into(),
                changes.payload_fields.is_some().into(),
                names(&changes.payload_fields).into(),
                changes.condition.is_some().into(),
                changes.condition.clone().flatten().into(),
                changes.payload_template.is_some().into(),
                template.map(|template| template.text.clone()).into(),
                changes.matched.is_some().into(),
                matched.map(CheckedMatch::to_json).into(),
                matched.map(CheckedMatch::key_texts).into(),
            ],
            |row| row.value(1),
        )
    });
    same.map_or(Ok(()), |id| Err(super::event_definitions::is_the_same(&id)))
}

/// Writes the changes and gives the event as it is then. `takes_over`: the caller owns it from
/// now on.
pub fn apply(event_key: i32, changes: EventChanges, by: &str, takes_over: bool) -> EventRow {
    let caller = current_role_oid();
    as_owner(|| {
        let before = change_log::event_state(event_key);
        execute(RENUMBER, &[event_key.into()]);
        if takes_over {
            execute(TAKE_OVER, &[event_key.into(), caller.into(), by.into()]);
        }
        write(event_key, changes, by);
        change_log::event_changed(event_key, &before, by);
        first(AS_IT_IS, &[event_key.into()], |row| {
            (
                row.value(1),
                row.value(2),
                row.value(3),
                row.get(4),
                row.get(5),
                row.get(6),
                row.get(7),
                row.get(8),
                row.get(9),
                row.value(10),
                row.value(11),
                row.value(12),
            )
        })
        .expect("a locked row does not go away")
    })
}

fn write(event_key: i32, changes: EventChanges, by: &str) {
    let (object_is_given, object) = (changes.object_fields.is_some(), changes.object_fields);
    let (payload_is_given, payload) = (changes.payload_fields.is_some(), changes.payload_fields);
    let (object_fields, object_attnums) = split(object);
    let (payload_fields, payload_attnums) = split(payload);
    let template_is_given = changes.payload_template.is_some();
    let template = changes.payload_template.flatten();
    let (template, fields) = template.map(|t| (t.text, t.fields)).unzip();
    let (template_fields, template_attnums) = split(Some(fields));
    let match_is_given = changes.matched.is_some();
    let matched = MatchParams::of(changes.matched.flatten());
    let order_key_is_given = changes.order_key.is_some();
    let (order_key, order_key_attnums) = split(changes.order_key);
    execute(
        UPDATE,
        &[
            event_key.into(),
            object_is_given.into(),
            object_fields.into(),
            object_attnums.into(),
            changes.event_sources.is_some().into(),
            changes.event_sources.flatten().into(),
            payload_is_given.into(),
            payload_fields.into(),
            payload_attnums.into(),
            changes.condition.is_some().into(),
            changes.condition.flatten().into(),
            changes.enabled.into(),
            changes.null_style.into(),
            changes.list_style.into(),
            by.into(),
            template_is_given.into(),
            template.into(),
            template_fields.into(),
            template_attnums.into(),
            match_is_given.into(),
            matched.json.into(),
            matched.fields.into(),
            matched.numbers.into(),
            matched.kinds.into(),
            matched.group.into(),
            matched.keys.into(),
            order_key_is_given.into(),
            order_key.into(),
            order_key_attnums.into(),
        ],
    );
}

fn split(fields: Option<Option<Fields>>) -> (Option<Vec<String>>, Option<Vec<i16>>) {
    fields.flatten().map(|f| (f.names, f.numbers)).unzip()
}
