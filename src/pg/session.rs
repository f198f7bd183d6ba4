//! Who makes the change, and from where.

use std::cell::RefCell;
use std::ffi::CStr;
use std::rc::Rc;

use pgrx::pg_sys;

use super::settings;

thread_local! {
    static SOURCE: RefCell<Rc<str>> = RefCell::new(Rc::from(""));
    static ACTOR: RefCell<(u32, Option<Rc<str>>)> = const { RefCell::new((0, None)) };
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
    // SAFETY: looks a role up; a role that is gone gives NULL.
    unsafe {
        let role = pg_sys::GetOuterUserId();
        ACTOR.with_borrow_mut(|(oid, name)| {
            if *oid != role.to_u32() {
                *oid = role.to_u32();
                let text = pg_sys::GetUserNameFromId(role, true);
                *name = (!text.is_null()).then(|| {
                    Rc::from(super::encoding::from_server(
                        CStr::from_ptr(text).to_bytes(),
                    ))
                });
            }
            name.clone()
        })
    }
}

/// pg_upgrade replays the schema: nothing that happens then is a user's change.
pub fn in_binary_upgrade() -> bool {
    // SAFETY: a flag of the server.
    unsafe { pg_sys::IsBinaryUpgrade }
}
