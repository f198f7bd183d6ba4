//! Randomness of the operating system, for ids and secrets.

use crate::core::definitions::ids;
use crate::core::error::{Error, Kind, Result};

/// So many ids in a row cannot be taken by chance.
const TRIES: usize = 100;

/// Bytes that nobody can guess.
pub fn bytes<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| {
        Error::new(
            Kind::NotInPrerequisiteState,
            format!("the operating system gives no random bytes: {error}"),
        )
        .with_hint("try again; if it lasts, see why getrandom() fails on this machine")
    })?;
    Ok(bytes)
}

/// An id that nothing has.
pub fn unused_id(is_taken: impl Fn(&str) -> bool) -> Result<String> {
    for _ in 0..TRIES {
        match ids::from_random(bytes::<32>()?.into_iter()) {
            Some(id) if !is_taken(&id) => return Ok(id),
            _ => {}
        }
    }
    Err(Error::new(
        Kind::NotInPrerequisiteState,
        "found no id that is not taken",
    )
    .with_hint("try again"))
}
