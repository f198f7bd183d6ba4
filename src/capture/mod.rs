//! From a changed row to a row of the outbox, in the user's transaction.
//!
//! Order of work, cheapest exit first: capture off, event off, values of the row that no event
//! lists, source does not match, no trigger field changed; then the row is written as JSON text into
//! the transaction's buffer. At PRE_COMMIT the buffer goes to the outbox, after
//! COMMIT the worker is woken. An error here is the user's error, so nothing
//! here calls user code, the network or a template.

#![cfg_attr(not(test), deny(clippy::cast_possible_truncation))]

mod buffer;
mod flush;
mod learned;
mod message_id;
mod rules;
mod shapes;

use std::cell::RefCell;

use crate::core::messages::oversize::Oversize;
use crate::core::payloads::template::render::push_name_list;
use crate::pg::row_json::{LimitedText, TooLarge};
use crate::pg::trigger::{Firing, Operation};
use crate::pg::{append, clock, invalidation, session, settings, wake, xact};
use buffer::{Buffer, Captured};
use rules::Rule;

crate::trigger_function!(webhook_capture, pg_finfo_webhook_capture, on_call);

thread_local! {
    /// Never borrowed while PostgreSQL runs: a session that is ended there is not unwound, and
    /// the callbacks of its abort need the buffer.
    static BUFFER: RefCell<Buffer> = RefCell::default();
    /// Scratch space for the row at hand.
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// The texts of one row; what its event does not need stays empty.
#[derive(Default)]
struct Scratch {
    /// Empty for a row that is too large to be sent.
    record: LimitedText,
    old_record: LimitedText,
    /// The message's keys, and behind them what changed or, of a row that is too large, its
    /// [`Oversize`].
    changed: Vec<u8>,
}

/// The trigger function `webhook.capture()`.
fn on_call(firing: Option<Firing<'_>>) {
    let Some(firing) = firing else {
        pgrx::ereport!(
            ERROR,
            pgrx::PgSqlErrorCode::ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED,
            "webhook.capture() is not called as an AFTER row trigger",
            "webhook.create_event() creates the trigger"
        );
    };
    if !settings::capture() || session::in_binary_upgrade() {
        return;
    }
    #[cfg(feature = "fault_injection")]
    crate::pg::fault::panic_if("trigger");
    invalidation::accept_once_a_statement();
    rules::for_each(&firing, |rule| capture(&firing, rule));
}

/// Called once, when a process loads the library. Where it is preloaded, other extensions'
/// callbacks were registered later, and so run before this one's.
pub fn register() {
    xact::register_once(xact::Hooks {
        pre_commit: flush::at_commit,
        committed: wake_if_written,
        ended: forget,
        subxact_started: || in_callback(Buffer::subtransaction_started),
        subxact_committed: || in_callback(Buffer::subtransaction_committed),
        subxact_aborted: || in_callback(Buffer::subtransaction_aborted),
    });
    with_buffer(|buffer| buffer.assume_depth(xact::open_subtransactions()));
    if xact::may_be_committing() {
        flush::expect_no_other();
    }
}

fn with_buffer<T>(f: impl FnOnce(&mut Buffer) -> T) -> T {
    BUFFER.with_borrow_mut(f)
}

/// For callbacks, which may not panic: a buffer that is not there is an empty one.
fn in_callback(f: impl FnOnce(&mut Buffer)) {
    let _ = BUFFER.try_with(|buffer| {
        if let Ok(mut buffer) = buffer.try_borrow_mut() {
            f(&mut buffer);
        }
    });
}

/// After COMMIT: nothing here may fail.
fn wake_if_written() {
    if flush::transaction_ended() {
        wake::wake_worker();
    }
    in_callback(Buffer::clear);
    rules::transaction_ended();
}

fn forget() {
    flush::transaction_ended();
    in_callback(Buffer::clear);
    rules::transaction_ended();
}

fn capture(firing: &Firing<'_>, rule: &Rule) {
    if !source_matches(rule) || !changed(firing, rule) {
        return;
    }
    let (source, actor) = (session::source(), session::actor());
    let captured_at = clock::now();
    let message_id = message_id::next(captured_at);
    // Written aside first: the buffer must not be borrowed while an output
    // function of PostgreSQL runs.
    let mut scratch = SCRATCH.take();
    scratch.fill(firing, rule);
    let full = with_buffer(|buffer| {
        let mut optional = |text: &[u8]| (!text.is_empty()).then(|| buffer.add_text(text));
        let record = optional(scratch.record.as_bytes());
        let changed = optional(&scratch.changed);
        let old_record = optional(scratch.old_record.as_bytes());
        buffer.push(Captured {
            id: 0,
            extension: rule.extension,
            message_id,
            event_key: rule.event_key,
            webhook_key: rule.webhook_key,
            captured_at,
            source: (!source.is_empty()).then_some(source),
            actor,
            changed,
            record,
            old_record,
        });
        buffer.is_full()
    });
    scratch.release();
    SCRATCH.set(scratch);
    if full || flush::no_other_follows() {
        flush::now();
    }
}

impl Scratch {
    fn fill(&mut self, firing: &Firing<'_>, rule: &Rule) {
        self.release();
        if let Some(key) = &rule.shape.order_key {
            let keys = firing.order_keys(&mut key.borrow_mut());
            keys.push_prefix(&mut self.changed);
        }
        let prefix = self.changed.len();
        let limit_bytes = settings::max_message_bytes();
        if let Err(at_least_bytes) = self.write(firing, rule, limit_bytes) {
            self.record.release();
            self.old_record.release();
            self.changed.truncate(prefix);
            let oversize = Oversize {
                at_least_bytes: at_least_bytes as u64,
                limit_bytes: limit_bytes as u64,
            };
            self.changed
                .extend_from_slice(oversize.to_stored().as_bytes());
        }
    }

    /// Fails with the size so far if the row is larger than a message may be.
    fn write(&mut self, firing: &Firing<'_>, rule: &Rule, limit_bytes: usize) -> Result<(), usize> {
        let limit_bytes = limit_bytes.min(append::largest_texts());
        let mut writer = rule.shape.writer.borrow_mut();
        let written = firing.write_current(&mut writer, limit_bytes, &mut self.record);
        let size = self.record.size();
        written.map_err(|TooLarge| size)?;
        if let Some(writer) = &rule.shape.old_writer {
            let limit_bytes = limit_bytes.min(append::largest_texts() - size.min(limit_bytes));
            let mut writer = writer.borrow_mut();
            let written = firing.write_old(&mut writer, limit_bytes, &mut self.old_record);
            written.map_err(|TooLarge| size + self.old_record.size())?;
        }
        let listed = rule.shape.listed.as_ref();
        if let Some(names) = listed.and_then(|watch| firing.changed_names(&mut watch.borrow_mut()))
        {
            push_name_list(&mut self.changed, names.iter().map(String::as_str));
        }
        Ok(())
    }

    /// Empties it; large texts give their memory back.
    fn release(&mut self) {
        self.record.release();
        self.old_record.release();
        self.changed.clear();
    }
}

fn source_matches(rule: &Rule) -> bool {
    rule.sources
        .as_ref()
        .is_none_or(|sources| sources.contains(&session::source().to_lowercase()))
}

/// Whether an UPDATE changed the stored image of a trigger field. Other changes count.
fn changed(firing: &Firing<'_>, rule: &Rule) -> bool {
    firing.operation() != Operation::Update
        || firing.fields_changed(&mut rule.shape.watch.borrow_mut())
}
