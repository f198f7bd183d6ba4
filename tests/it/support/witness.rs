//! An independent witness of what was committed: a plain trigger that writes
//! every change of a table down in the same transaction.
//!
//! An update that changes nothing is no change. The row is written as
//! PostgreSQL writes it, which for numbers and text is what a payload contains
//! with `null_style => 'null'`.

use super::definitions::records_at;
use super::{Cluster, Receiver};

const PREPARE: &str = "
create table if not exists witnessed (place bigserial primary key, change text, record json);
create or replace function witness() returns trigger language plpgsql as $$
begin
    if tg_op <> 'UPDATE' or old is distinct from new then
        insert into witnessed (change, record) values (initcap(tg_op), row_to_json(coalesce(new, old)));
    end if;
    return null;
end
$$;";

/// From now on every change of `table` is witnessed.
pub fn watch(cluster: &Cluster, table: &str) {
    cluster.sql(&format!(
        "{PREPARE}
         create trigger witness after insert or update or delete on {table}
         for each row execute function witness()"
    ));
}

/// What was committed, in order: `Insert {"id":1}`.
pub fn committed(cluster: &Cluster) -> Vec<String> {
    let mut session = cluster.connect("postgres");
    let rows = session.query(
        "select change || ' ' || record from witnessed order by place",
        &[],
    );
    let rows = rows.expect("what was witnessed can be read");
    rows.iter().map(|row| row.get(0)).collect()
}

/// Every committed change was received once, in the order in which it was made, and nothing
/// else was. The order needs a webhook with `max_in_flight => 1`.
pub fn assert_received_in_order(cluster: &Cluster, receiver: &Receiver, path: &str) {
    let (committed, received) = (committed(cluster), records_at(receiver, path));
    let differs = committed
        .iter()
        .zip(&received)
        .position(|(committed, received)| committed != received)
        .unwrap_or_else(|| committed.len().min(received.len()));
    assert!(
        committed == received,
        "{} changes committed, {} received; number {differs} is\n{:?}, but came as\n{:?}",
        committed.len(),
        received.len(),
        committed.get(differs),
        received.get(differs)
    );
}
