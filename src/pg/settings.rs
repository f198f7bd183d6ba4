//! The settings `webhook.*`, each with the meaning of its extremes.
//!
//! Defined when the library is loaded; a value that was set before is checked
//! then. A list that does not parse is refused where it is set, with the reason,
//! and the old value stays. A thread never reads a setting: it is given a
//! [`Delivery`], which the worker rebuilds after each reload.

mod checks;
mod definitions;

use std::cell::RefCell;
use std::ffi::{CStr, CString};
use std::path::PathBuf;
use std::time::Duration;

use pgrx::{pg_sys, GucSetting};
use sha2::{Digest, Sha256};

use crate::core::messages::standby::parse_slot_names;
use crate::core::policy::address::AddressPolicy;
use crate::core::policy::retry::Schedule;

pub use definitions::define;

/// Calls in flight per database: a thread each, with a small stack.
const DEFAULT_CONNECTIONS: i32 = 64;
/// Beyond, threads and sockets cost more than they bring.
const MAX_CONNECTIONS: i32 = 4096;
/// What the documents of the hosted product promise.
const DEFAULT_MAX_MESSAGE_BYTES: i32 = 10 << 20;
/// PostgreSQL keeps no text beyond 1 GB; a message is the row and its envelope.
const LARGEST_MESSAGE_BYTES: i32 = 1 << 29;
const DEFAULT_MAX_RESPONSE_BYTES: i32 = 16 << 10;
const LARGEST_RESPONSE_BYTES: i32 = 1 << 20;
const DEFAULT_LOG_RETENTION_SECONDS: i32 = 7 * 86_400;
const DEFAULT_LOG_MAX_MB: i32 = 10 << 10;

/// Characters of a derived account id: about 82 bits, so that two clusters differ.
const ACCOUNT_ID_CHARS: usize = 16;

static SOURCE: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c""));
static CAPTURE: GucSetting<bool> = GucSetting::<bool>::new(true);
static RECHECK_PRIVILEGES: GucSetting<bool> = GucSetting::<bool>::new(true);
static DELIVERY: GucSetting<bool> = GucSetting::<bool>::new(true);
static ACCOUNT_ID: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(None);
static IDENTITY: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c""));
static INTEGRATION_URL: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c""));
static CONNECTIONS: GucSetting<i32> = GucSetting::<i32>::new(DEFAULT_CONNECTIONS);
static MAX_MESSAGE_SIZE: GucSetting<i32> = GucSetting::<i32>::new(DEFAULT_MAX_MESSAGE_BYTES);
static MAX_RESPONSE_SIZE: GucSetting<i32> = GucSetting::<i32>::new(DEFAULT_MAX_RESPONSE_BYTES);
static LOG_RETENTION: GucSetting<i32> = GucSetting::<i32>::new(DEFAULT_LOG_RETENTION_SECONDS);
static LOG_MAX_SIZE: GucSetting<i32> = GucSetting::<i32>::new(DEFAULT_LOG_MAX_MB);
static RETRY_SCHEDULE: GucSetting<Option<CString>> =
    GucSetting::<Option<CString>>::new(Some(c"5s,5min,30min,2h,5h,10h,14h,20h,24h"));
static ALLOWED_NETWORKS: GucSetting<Option<CString>> =
    GucSetting::<Option<CString>>::new(Some(c""));
static REQUIRE_HTTPS: GucSetting<bool> = GucSetting::<bool>::new(true);
static CA_FILE: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c""));
static STANDBY_SLOTS: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c""));
static DATABASE_WORKERS: GucSetting<bool> = GucSetting::<bool>::new(true);

thread_local! {
    /// What the main thread has read in this database.
    static CLUSTER_ACCOUNT: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// What the worker and its threads go by until the next reload.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// Master switch of sending.
    pub on: bool,
    pub account_id: String,
    /// `[@sys:IntegrationURL]` of templates.
    pub integration_url: String,
    pub connections: usize,
    pub max_message_bytes: usize,
    pub max_response_bytes: usize,
    pub retry_schedule: Schedule,
    pub allowed_networks: AddressPolicy,
    pub require_https: bool,
    /// How long delivered and failed messages, and calls, are kept.
    pub log_retention: Duration,
    /// How large outbox and log may become together before that; `None`: no limit.
    pub log_max_bytes: Option<i64>,
    /// `None`: only the roots that we bring along.
    pub ca_file: Option<PathBuf>,
    /// Slots of the standbys that must have a commit before it is sent.
    pub standby_slots: Vec<String>,
}

/// The settings of delivery as they are now.
pub fn delivery() -> Delivery {
    Delivery {
        on: DELIVERY.get(),
        account_id: account_id(),
        integration_url: integration_url(),
        connections: CONNECTIONS.get() as usize,
        max_message_bytes: max_message_bytes(),
        max_response_bytes: MAX_RESPONSE_SIZE.get() as usize,
        retry_schedule: Schedule::parse(&text(&RETRY_SCHEDULE))
            .expect("checked when the setting was set"),
        allowed_networks: AddressPolicy::parse(&text(&ALLOWED_NETWORKS))
            .expect("checked when the setting was set"),
        require_https: REQUIRE_HTTPS.get(),
        log_retention: Duration::from_secs(LOG_RETENTION.get().unsigned_abs().into()),
        log_max_bytes: Some(i64::from(LOG_MAX_SIZE.get()) << 20).filter(|most| *most > 0),
        ca_file: Some(text(&CA_FILE))
            .filter(|path| !path.is_empty())
            .map(PathBuf::from),
        standby_slots: parse_slot_names(&text(&STANDBY_SLOTS))
            .expect("checked when the setting was set"),
    }
}

/// `webhook.delivery`: whether anything is sent at all.
pub fn delivery_is_on() -> bool {
    DELIVERY.get()
}

/// `webhook.max_message_size` as this session knows it.
pub fn max_message_bytes() -> usize {
    MAX_MESSAGE_SIZE.get() as usize
}

/// `webhook.capture`: whether changes make messages at all.
pub fn capture() -> bool {
    CAPTURE.get()
}

/// `webhook.recheck_privileges`: whether an event stops when its owner loses a right.
pub fn recheck_privileges() -> bool {
    RECHECK_PRIVILEGES.get()
}

/// `webhook.source` without a copy: it is asked for each change.
pub fn with_source<T>(f: impl FnOnce(&str) -> T) -> T {
    // SAFETY: a NUL-terminated string that PostgreSQL keeps at least until the setting is
    // set again, which `f` does not do.
    let text = unsafe {
        let value = *SOURCE.as_ptr();
        if value.is_null() {
            c""
        } else {
            CStr::from_ptr(value)
        }
    };
    match text.to_str() {
        Ok(text) => f(text),
        Err(_) => f(&super::encoding::from_server(text.to_bytes())),
    }
}

/// `webhook.account_id`, never empty.
pub fn account_id() -> String {
    let own = text(&ACCOUNT_ID);
    let derived = derived_account_id();
    if own.is_empty() || own == derived {
        let of_cluster = CLUSTER_ACCOUNT.with_borrow(Clone::clone);
        of_cluster.unwrap_or(derived)
    } else {
        own
    }
}

/// The account of the cluster that this node belongs to; `true` if that is news.
pub fn set_cluster_account(account_id: Option<String>) -> bool {
    CLUSTER_ACCOUNT.with_borrow_mut(|known| {
        let is_news = *known != account_id;
        *known = account_id;
        is_news
    })
}

/// `webhook.identity`.
pub fn identity() -> String {
    text(&IDENTITY)
}

/// `webhook.integration_url`.
pub fn integration_url() -> String {
    text(&INTEGRATION_URL)
}

fn text(setting: &GucSetting<Option<CString>>) -> String {
    setting
        .get()
        .map(|text| super::encoding::from_server(text.to_bytes()))
        .unwrap_or_default()
}

/// The same for the life of the cluster and all its standbys, and tells nothing of it.
fn derived_account_id() -> String {
    // SAFETY: the control file has been read before any library is loaded.
    let system = unsafe { pg_sys::GetSystemIdentifier() };
    let digest = Sha256::digest(format!("webhook account {system}"));
    let mut number = u128::from_be_bytes(
        digest[..16]
            .try_into()
            .expect("a SHA-256 digest has 32 bytes"),
    );
    let digits = b"abcdefghijklmnopqrstuvwxyz0123456789";
    (0..ACCOUNT_ID_CHARS)
        .map(|_| {
            let digit = digits[(number % 36) as usize];
            number /= 36;
            char::from(digit)
        })
        .collect()
}

/// Whether the launcher starts workers.
pub fn database_workers() -> bool {
    DATABASE_WORKERS.get()
}
