//! Who makes the change, and from where.

use std::cell::{Cell, RefCell};
use std::ffi::CStr;
use std::rc::Rc;

use pgrx::pg_sys;
use pgrx::prelude::*;

use super::settings;

extern "C" {
    // miscadmin.h. Raises nothing, so it needs no guard.
    fn GetOuterUserId() -> pg_sys::Oid;
}

thread_local! {
    static SOURCE: RefCell<Rc<str>> = RefCell::new(Rc::from(""));
    static ACTOR: RefCell<Actor> = RefCell::default();
    /// Counts up whenever a role may have changed.
    static ROLES: Cell<u64> = const { Cell::new(1) };
    static LISTENING: Cell<bool> = const { Cell::new(false) };
}

/// The name of a role as it was in a generation of [`ROLES`].
#[derive(Default)]
struct Actor {
    role: pg_sys::Oid,
    generation: u64,
    name: Option<Rc<str>>,
}

/// Whether this process applies what a subscription receives.
pub fn applies_replication() -> bool {
    // SAFETY: looks at a variable of this process.
    unsafe { pg_sys::IsLogicalWorker() }
}

/// The event source of this session: `webhook.source`, or else `application_name`.
pub fn source() -> Rc<str> {
    settings::with_source(|own| {
        if own.is_empty() {
            shared(&application_name())
        } else {
            shared(own)
        }
    })
}

/// The same text as last time costs no allocation.
fn shared(text: &str) -> Rc<str> {
    SOURCE.with_borrow_mut(|last| {
        if &**last != text {
            *last = Rc::from(text);
        }
        Rc::clone(last)
    })
}

fn application_name() -> std::borrow::Cow<'static, str> {
    // SAFETY: a NUL-terminated setting that PostgreSQL keeps ASCII; it is compared
    // or copied before it can change.
    unsafe {
        let name = pg_sys::application_name;
        if name.is_null() {
            return "".into();
        }
        CStr::from_ptr(name).to_string_lossy()
    }
}

/// The role that acts: the session's role with SET ROLE, not the owner of whatever
/// function or referential action happens to run.
pub fn actor() -> Option<Rc<str>> {
    // SAFETY: reads a variable of this backend.
    let role = unsafe { GetOuterUserId() };
    let known = ACTOR.with_borrow(|actor| {
        let same = actor.role == role && actor.generation == ROLES.get();
        same.then(|| actor.name.clone())
    });
    known.unwrap_or_else(|| look_up_actor(role))
}

fn look_up_actor(role: pg_sys::Oid) -> Option<Rc<str>> {
    listen_to_roles();
    // Before the look-up, so that a change during it is not missed.
    let generation = ROLES.get();
    // SAFETY: looks a role up; a role that is gone gives NULL. The name is copied.
    let name = unsafe {
        let text = pg_sys::GetUserNameFromId(role, true);
        (!text.is_null()).then(|| CStr::from_ptr(text).to_bytes())
    };
    let name: Option<Rc<str>> = name.map(|name| Rc::from(super::encoding::from_server(name)));
    ACTOR.set(Actor {
        role,
        generation,
        name: name.clone(),
    });
    name
}

/// A role may be renamed while its sessions go on.
fn listen_to_roles() {
    if LISTENING.replace(true) {
        return;
    }
    // SAFETY: a static callback without an argument.
    unsafe {
        pg_sys::CacheRegisterSyscacheCallback(
            pg_sys::SysCacheIdentifier::AUTHOID as i32,
            Some(on_role_change),
            pg_sys::Datum::from(0usize),
        );
    }
}

/// May run at almost any point: counts, and nothing else.
#[pg_guard]
unsafe extern "C-unwind" fn on_role_change(_arg: pg_sys::Datum, _cache: i32, _hash: u32) {
    ROLES.set(ROLES.get() + 1);
}

/// pg_upgrade replays the schema: nothing that happens then is a user's change.
pub fn in_binary_upgrade() -> bool {
    // SAFETY: a flag of the server.
    unsafe { pg_sys::IsBinaryUpgrade }
}
