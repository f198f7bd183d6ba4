//! Operational events as users define them: they have no table, and no trigger.

use pgrx::datum::TimestampWithTimeZone;

use super::change_log;
use super::event_definitions::is_the_same;
use super::rows::first;
use crate::core::definitions::operational::OperationalEvent;
use crate::core::error::Result;
use crate::pg::owner::{as_owner, current_role_oid};

/// Every value is checked.
pub struct NewOperationalEvent {
    pub id: String,
    pub event_type: OperationalEvent,
    pub payload_template: Option<String>,
    pub enabled: bool,
    pub null_style: &'static str,
    pub list_style: &'static str,
    pub created_by: String,
}

const SAME_EVENT: &str = "
select e.id
from webhook.event_def e
where e.webhook_key = $1
  and e.event_type = $2
  and e.dropped_at is null
  and e.payload_template is not distinct from $3";

const INSERT: &str = "
insert into webhook.event_def (id, webhook_key, event_type, payload_template, enabled, null_style, list_style,
                               created_by, owner_name, owner_oid)
values ($1, $2, $3, $4, $5, $6, $7, $8, $8, $9)
returning created_at";

/// # Errors
/// `42710` if the webhook has the same event already.
pub fn insert(webhook_key: i32, event: &NewOperationalEvent) -> Result<TimestampWithTimeZone> {
    let owner = current_role_oid();
    let created_at = as_owner(|| {
        let same = [
            webhook_key.into(),
            event.event_type.as_str().into(),
            event.payload_template.clone().into(),
        ];
        if let Some(id) = first(SAME_EVENT, &same, |row| row.value::<String>(1)) {
            return Err(is_the_same(&id));
        }
        let created_at = first(
            INSERT,
            &[
                event.id.as_str().into(),
                webhook_key.into(),
                event.event_type.as_str().into(),
                event.payload_template.clone().into(),
                event.enabled.into(),
                event.null_style.into(),
                event.list_style.into(),
                event.created_by.as_str().into(),
                owner.into(),
            ],
            |row| row.value(1),
        );
        Ok(created_at.expect("an INSERT of one row returns it"))
    })?;
    change_log::event_created(&event.id, &event.created_by);
    Ok(created_at)
}
