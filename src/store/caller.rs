//! What the caller of a function that only reads may see. With the rights of the caller.

use super::rows::first;

/// The views ask the same.
const IS_ADMIN: &str = "
select pg_catalog.has_function_privilege('webhook.drop_webhook(text)', 'execute')";

const MASKED: &str = "
select webhook_internal.masked_url($1)";

/// Whether the caller administers webhooks: it sees bodies and texts as they are.
pub fn is_admin() -> bool {
    first(IS_ADMIN, &[], |row| row.value(1)).unwrap_or(false)
}

/// A text as others see it, without what looks like a credential in a URL.
pub fn masked(text: &str) -> String {
    first(MASKED, &[text.into()], |row| row.value(1)).unwrap_or_default()
}
