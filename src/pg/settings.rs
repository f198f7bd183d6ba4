//! The settings `webhook.*`, each with the meaning of its extremes.
//!
//! Defined when the library is loaded; a value that was set before is checked
//! then. A list that does not parse is refused where it is set, with the reason,
//! and the old value stays. A thread never reads a setting: it is given a
//! [`Delivery`], which the worker rebuilds after each reload.

use std::ffi::{c_char, c_void, CStr, CString};
use std::path::PathBuf;
use std::time::Duration;

use pgrx::{pg_guard, pg_sys, GucContext, GucFlags, GucRegistry, GucSetting};
use sha2::{Digest, Sha256};

use crate::core::address::AddressPolicy;
use crate::core::error::Result;
use crate::core::limits;
use crate::core::retry::Schedule;
use crate::core::standby::parse_slot_names;

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
/// Most bytes of a character in any encoding of a server.
const CHARACTER_BYTES: usize = 4;

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
    if own.is_empty() {
        derived_account_id()
    } else {
        own
    }
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

/// Defines every setting. Called once, when the library is loaded.
pub fn define() {
    define_capture();
    define_delivery();
    define_payload();
    define_limits();
    define_log();
    define_addresses();
    define_standbys();
    define_identity();
    define_workers();
    // SAFETY: a static string; from now on a mistyped webhook.* is an error.
    unsafe { pg_sys::MarkGUCPrefixReserved(c"webhook".as_ptr()) }
}

fn define_capture() {
    // SAFETY: the hook is guarded.
    unsafe {
        GucRegistry::define_string_guc_with_hooks(
            c"webhook.source",
            c"Event source of this session's changes.",
            c"At most 200 characters. Compared with event_sources of an event, whatever the case. Empty: application_name is the source.",
            &SOURCE,
            GucContext::Userset,
            GucFlags::default(),
            Some(check_source),
            None,
            None,
        );
    }
    GucRegistry::define_bool_guc(
        c"webhook.capture",
        c"Master switch of capture.",
        c"Off: changes make no messages, for restores and migrations. What was captured before is still delivered.",
        &CAPTURE,
        GucContext::Suset,
        GucFlags::default(),
    );
    GucRegistry::define_bool_guc(
        c"webhook.recheck_privileges",
        c"Whether an event stops when its owner may no longer read its table.",
        c"On: it captures nothing while its owner (webhook.events.owner) lacks SELECT on the table, or is subject to its row security; a WARNING in each session that writes to the table says so. Off: the rights that the owner had when the event was created are enough.",
        &RECHECK_PRIVILEGES,
        GucContext::Sighup,
        GucFlags::default(),
    );
}

fn define_delivery() {
    GucRegistry::define_bool_guc(
        c"webhook.delivery",
        c"Master switch of sending.",
        c"Off: nothing is called; changes are captured and wait.",
        &DELIVERY,
        GucContext::Sighup,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"webhook.connections",
        c"Most calls in flight, all URLs of a database together.",
        c"1: one call at a time. Each call in flight has a thread and a connection; threads are started as they are needed.",
        &CONNECTIONS,
        1,
        MAX_CONNECTIONS,
        GucContext::Sighup,
        GucFlags::default(),
    );
    // SAFETY: the hook is guarded.
    unsafe {
        GucRegistry::define_string_guc_with_hooks(
            c"webhook.retry_schedule",
            c"Pauses before a failed call is repeated.",
            c"Delays separated by commas, with the units us, ms, s, min, h, d: 5s,5min,30min. The last one repeats; up to 20 % is added at random.",
            &RETRY_SCHEDULE,
            GucContext::Sighup,
            GucFlags::default(),
            Some(check_retry_schedule),
            None,
            None,
        );
    }
}

fn define_payload() {
    let derived = CString::new(derived_account_id()).expect("letters and digits hold no NUL");
    // SAFETY: nobody else reads the variable yet. The text is never freed, because
    // PostgreSQL keeps the pointer as the setting's default.
    unsafe { *ACCOUNT_ID.as_ptr() = derived.into_raw() };
    GucRegistry::define_string_guc(
        c"webhook.account_id",
        c"The accountId in payloads.",
        c"Empty: derived from the cluster's system identifier, so it is the same on a standby and another one after initdb.",
        &ACCOUNT_ID,
        GucContext::Sighup,
        GucFlags::default(),
    );
    GucRegistry::define_string_guc(
        c"webhook.integration_url",
        c"Value of the template parameter [@sys:IntegrationURL].",
        c"Empty: the parameter is an empty string.",
        &INTEGRATION_URL,
        GucContext::Sighup,
        GucFlags::default(),
    );
}

fn define_limits() {
    GucRegistry::define_int_guc(
        c"webhook.max_message_size",
        c"Largest message that is sent.",
        c"A larger one fails at once and is logged with its size. The largest value is 512 MB.",
        &MAX_MESSAGE_SIZE,
        1024,
        LARGEST_MESSAGE_BYTES,
        GucContext::Sighup,
        GucFlags::UNIT_BYTE,
    );
    GucRegistry::define_int_guc(
        c"webhook.max_response_size",
        c"How much of a receiver's answer is kept in the log.",
        c"0: nothing. The rest of a longer answer is not read. The largest value is 1 MB.",
        &MAX_RESPONSE_SIZE,
        0,
        LARGEST_RESPONSE_BYTES,
        GucContext::Sighup,
        GucFlags::UNIT_BYTE,
    );
}

fn define_log() {
    GucRegistry::define_int_guc(
        c"webhook.log_retention",
        c"How long delivered and failed messages and their calls are kept.",
        c"Older ones are removed. 0: as soon as they are no longer needed. What is pending is never removed.",
        &LOG_RETENTION,
        0,
        i32::MAX,
        GucContext::Sighup,
        GucFlags::UNIT_S,
    );
    GucRegistry::define_int_guc(
        c"webhook.log_max_size",
        c"Size of outbox and log from which on old messages and calls are removed before their time.",
        c"0: no limit. What is pending is never removed, so the size may be larger.",
        &LOG_MAX_SIZE,
        0,
        i32::MAX,
        GucContext::Sighup,
        GucFlags::UNIT_MB,
    );
}

fn define_addresses() {
    // SAFETY: the hook is guarded.
    unsafe {
        GucRegistry::define_string_guc_with_hooks(
            c"webhook.allowed_networks",
            c"Networks that may be called although their addresses are not public.",
            c"Addresses and CIDR ranges separated by commas: 127.0.0.0/8,10.1.2.3. Link-local and metadata addresses only one by one. Empty: public addresses only.",
            &ALLOWED_NETWORKS,
            GucContext::Sighup,
            GucFlags::default(),
            Some(check_allowed_networks),
            None,
            None,
        );
    }
    GucRegistry::define_bool_guc(
        c"webhook.require_https",
        c"Whether plain http is refused.",
        c"On: plain http only into webhook.allowed_networks. Off: everywhere.",
        &REQUIRE_HTTPS,
        GucContext::Sighup,
        GucFlags::default(),
    );
    GucRegistry::define_string_guc(
        c"webhook.ca_file",
        c"PEM file with certificates that are trusted beside the public roots.",
        c"Empty: the public roots only.",
        &CA_FILE,
        GucContext::Sighup,
        GucFlags::default(),
    );
}

fn define_standbys() {
    // SAFETY: the hook is guarded.
    unsafe {
        GucRegistry::define_string_guc_with_hooks(
            c"webhook.synchronized_standby_slots",
            c"Physical replication slots of the standbys that must have a commit before its messages are sent.",
            c"Names separated by commas. A message is sent once all of these standbys have flushed its commit, so that none was sent that a promotion of one of them undoes; a slot that lags, is missing or has been invalidated holds new messages. Empty: a message is sent once its commit is on the disk of this server.",
            &STANDBY_SLOTS,
            GucContext::Sighup,
            GucFlags::from_bits_retain(pg_sys::GUC_LIST_INPUT as i32),
            Some(check_standby_slots),
            None,
            None,
        );
    }
}

/// Whether the launcher shall run.
pub fn database_workers() -> bool {
    DATABASE_WORKERS.get()
}

fn define_workers() {
    // SAFETY: a flag of the server. A setting that only the postmaster may set cannot be
    // defined later, when the flag is off; then it has no effect either.
    let preloading = unsafe { pg_sys::process_shared_preload_libraries_in_progress };
    GucRegistry::define_bool_guc(
        c"webhook.database_workers",
        c"Whether each database that has the extension gets a worker when the server starts.",
        c"Needs webhook_ext in shared_preload_libraries; without it, CREATE EXTENSION and the first captured change start the worker.",
        &DATABASE_WORKERS,
        if preloading {
            GucContext::Postmaster
        } else {
            GucContext::Sighup
        },
        GucFlags::default(),
    );
}

fn define_identity() {
    // SAFETY: the hook only sets a flag of this process.
    unsafe {
        GucRegistry::define_string_guc_with_hooks(
            c"webhook.identity",
            c"Name of this installation.",
            c"Tells a clone made by base backup from its original. Another name than the one under which the definitions were made holds capture and delivery until webhook.adopt() is called. Empty: the installation has no name.",
            &IDENTITY,
            GucContext::Sighup,
            GucFlags::default(),
            None,
            Some(on_new_identity),
            None,
        );
    }
}

/// What was decided under the old name is decided again.
#[pg_guard]
unsafe extern "C-unwind" fn on_new_identity(_value: *const c_char, _extra: *mut c_void) {
    super::invalidation::mark_stale();
}

#[pg_guard]
unsafe extern "C-unwind" fn check_source(
    value: *mut *mut c_char,
    _extra: *mut *mut c_void,
    _source: pg_sys::GucSource::Type,
) -> bool {
    // SAFETY: PostgreSQL passes a NUL-terminated string.
    unsafe {
        let source = CStr::from_ptr(*value);
        // A text that is far too long is not looked at, and not repeated in the message.
        let is_far_too_long = source.count_bytes() > limits::SOURCE_CHARS * CHARACTER_BYTES;
        let text = if is_far_too_long {
            "".into()
        } else {
            source.to_string_lossy()
        };
        let error = match limits::check_source(&text) {
            Ok(_) if !is_far_too_long => return true,
            Ok(_) => limits::too_long("webhook.source", limits::SOURCE_CHARS),
            Err(error) => error,
        };
        pg_sys::GUC_check_errmsg_string = kept(&error.message);
        pg_sys::GUC_check_errhint_string = kept(&error.hint.unwrap_or_default());
        false
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn check_retry_schedule(
    value: *mut *mut c_char,
    _extra: *mut *mut c_void,
    _source: pg_sys::GucSource::Type,
) -> bool {
    // SAFETY: PostgreSQL passes a NUL-terminated string.
    unsafe { check(*value, |text| Schedule::parse(text).map(drop)) }
}

#[pg_guard]
unsafe extern "C-unwind" fn check_allowed_networks(
    value: *mut *mut c_char,
    _extra: *mut *mut c_void,
    _source: pg_sys::GucSource::Type,
) -> bool {
    // SAFETY: as above.
    unsafe { check(*value, |text| AddressPolicy::parse(text).map(drop)) }
}

#[pg_guard]
unsafe extern "C-unwind" fn check_standby_slots(
    value: *mut *mut c_char,
    _extra: *mut *mut c_void,
    _source: pg_sys::GucSource::Type,
) -> bool {
    // SAFETY: as above.
    unsafe { check(*value, |text| parse_slot_names(text).map(drop)) }
}

/// Says through PostgreSQL's own variables why a value is refused.
unsafe fn check(value: *const c_char, parse: impl FnOnce(&str) -> Result<()>) -> bool {
    // SAFETY: the value is NUL-terminated. The texts are allocated where PostgreSQL expects
    // them: it throws the context away after it has reported.
    unsafe {
        let text = CStr::from_ptr(value).to_string_lossy();
        let Err(error) = parse(&text) else {
            return true;
        };
        pg_sys::GUC_check_errdetail_string = kept(&error.message);
        if let Some(hint) = &error.hint {
            pg_sys::GUC_check_errhint_string = kept(hint);
        }
        false
    }
}

/// A copy where PostgreSQL allocates such texts itself; it frees them with its report.
///
/// # Safety
/// Called from a check hook.
unsafe fn kept(text: &str) -> *mut c_char {
    let text = CString::new(text).unwrap_or_default();
    // SAFETY: the context lives as long as the process.
    unsafe { pg_sys::MemoryContextStrdup(pg_sys::ErrorContext, text.as_ptr()) }
}
