//! Sending again what waits or has ended, many messages in one statement.
//!
//! As the extension's owner. The worker hears of it when the transaction commits.

use super::deliveries::change;
use super::rows::{first, query};
use crate::pg::owner::as_owner;

/// URLs of webhook $1 that are in use; those with the address $2, if that is given.
const URLS: &str = "
select u.url_key
from webhook.url_def u
where u.webhook_key = $1
  and u.dropped_at is null
  and ($2 is null or u.url = $2)";

/// The worker ends its pauses when it reads this.
const REOPEN: &str = "
update webhook.url_def
set reopened_at = pg_catalog.clock_timestamp()
where url_key = any ($1)
returning url_key";

/// One that waits for another message of its key is due after that.
const RETRY_NOW: &str = "
with due as (
    update webhook.retry r
    set next_at = pg_catalog.clock_timestamp(), changed_at = pg_catalog.clock_timestamp()
    where r.url_key = any ($1)
      and r.state = 'waiting'
      and r.next_at > pg_catalog.clock_timestamp()
      and r.next_at < 'infinity'
    returning 1
)
select pg_catalog.count(*)
from due";

/// The URLs in use of a webhook, or the one with this address.
pub fn urls_in_use(webhook_key: i32, outgoing_url: Option<&str>) -> Vec<i32> {
    as_owner(|| {
        let arguments = [webhook_key.into(), outgoing_url.map(str::to_owned).into()];
        query(URLS, &arguments, |row| row.value(1))
    })
}

/// The receivers of these URLs are back: what waits for a retry is due now. Gives its number.
pub fn retry_now(webhook_key: i32, url_keys: &[i32]) -> i64 {
    change(Some(webhook_key), || {
        query(REOPEN, &[url_keys.to_vec().into()], |_| ());
        first(RETRY_NOW, &[url_keys.to_vec().into()], |row| row.value(1)).unwrap_or(0)
    })
}
