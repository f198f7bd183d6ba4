//! Name, description, bounds and context of each setting.

use pgrx::{pg_sys, GucContext, GucFlags, GucRegistry};

use super::checks::{
    check_allowed_networks, check_ca_file, check_retry_schedule, check_source, check_standby_slots,
    on_new_identity, ARE_DEFINED,
};
use super::*;

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
    ARE_DEFINED.set(true);
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
    // SAFETY: nothing else reads the variable yet. The text is never freed, because
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
    // SAFETY: the hook is guarded.
    unsafe {
        GucRegistry::define_string_guc_with_hooks(
            c"webhook.ca_file",
            c"PEM file with certificates that are trusted beside the public roots.",
            c"An absolute path. Empty: the public roots only.",
            &CA_FILE,
            GucContext::Sighup,
            GucFlags::default(),
            Some(check_ca_file),
            None,
            None,
        );
    }
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
