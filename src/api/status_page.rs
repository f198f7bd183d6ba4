//! `webhook.status_page`.

use pgrx::datum::Interval;
use pgrx::prelude::*;

use super::operate::micros;
use crate::core::error::{Error, Result};
use crate::core::status_page::page;
use crate::pg::report::ok_or_raise;
use crate::pg::text::Text;
use crate::store::status_page;

const LONGEST_REFRESH_S: i128 = 86_400;

/// The statements that it runs are those that its caller might run.
#[pg_extern(sql = false)]
fn status_page(refresh: Option<Interval>) -> Text {
    let refresh_seconds = ok_or_raise(checked(refresh));
    page(&status_page::facts(refresh_seconds)).into()
}

/// Whole seconds; null and 0: the page does not load itself again.
fn checked(refresh: Option<Interval>) -> Result<u32> {
    let seconds = refresh.map_or(0, |refresh| micros(&refresh).div_euclid(1_000_000));
    match u32::try_from(seconds) {
        Ok(seconds) if i128::from(seconds) <= LONGEST_REFRESH_S => Ok(seconds),
        _ => Err(Error::invalid("refresh is not between 0 and 1 day")
            .with_hint("use an interval like '10 seconds', or 0 for a page that stays as it is")),
    }
}
