//! What statements have in common that send messages again.

/// The keys of a message, as `OrderKeys` stands in front of what has changed.
macro_rules! keys {
    ($message:literal) => {
        concat!(
            "
                case
                    when pg_catalog.left(",
            $message,
            ".changed, 34) ~ '^k([0-9a-f]{16}){1,2}:'
                    then ('x' || pg_catalog.substr(",
            $message,
            ".changed, 2, 16))::pg_catalog.bit(64)::pg_catalog.int8
                end,
                case
                    when pg_catalog.left(",
            $message,
            ".changed, 34) ~ '^k[0-9a-f]{32}:'
                    then ('x' || pg_catalog.substr(",
            $message,
            ".changed, 18, 16))::pg_catalog.bit(64)::pg_catalog.int8
                end"
        )
    };
}

/// When a redelivered message is due. Where the order of keys is kept the worker says so, once no
/// earlier one of its keys waits.
macro_rules! due {
    ($by_key:literal, $key:literal) => {
        concat!(
            "case when ",
            $by_key,
            " and ",
            $key,
            " is not null then 'infinity' else pg_catalog.clock_timestamp() end"
        )
    };
}

pub(super) use {due, keys};
