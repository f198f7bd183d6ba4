//! What was committed: a plain trigger writes every change down in the same transaction.
//!
//! So it knows nothing of what was rolled back, lost in a crash or in doubt, and its places
//! are in the order of the changes of each row.

use std::time::SystemTime;

use serde_json::Value;

use super::super::support::Cluster;

/// Partitions know only their own names: the table's is the trigger's argument. A change
/// that leaves the row as it was makes no message.
const WITNESS: &str = "
create table witnessed (
    place bigserial primary key, tab text, kind text, source text, old json, record json,
    began timestamptz default statement_timestamp()
);
create function witness() returns trigger language plpgsql as $$
begin
    if tg_op <> 'UPDATE' or old is distinct from new then
        insert into witnessed (tab, kind, source, old, record)
        values (tg_argv[0], initcap(tg_op),
                coalesce(nullif(current_setting('webhook.source', true), ''),
                         current_setting('application_name')),
                case when tg_op <> 'INSERT' then row_to_json(old) end,
                row_to_json(coalesce(new, old)));
    end if;
    return null;
end
$$;";

/// One committed change.
pub struct Change {
    pub place: i64,
    /// When the client sent its statement.
    pub began: SystemTime,
    pub table: String,
    /// Insert, Update or Delete.
    pub kind: String,
    pub source: String,
    /// The row before; none on an insert.
    pub old: Option<Value>,
    /// The row as PostgreSQL writes it: the new one, or the deleted one.
    pub record_text: String,
    pub record: Value,
}

impl Change {
    pub fn row(&self) -> i64 {
        self.record["id"].as_i64().expect("each row has an id")
    }

    pub fn differs(&self, field: &str) -> bool {
        self.old
            .as_ref()
            .is_some_and(|old| old[field] != self.record[field])
    }
}

/// From now on every change of these tables is written down.
pub fn watch(cluster: &Cluster, tables: &[&str]) {
    cluster.sql(WITNESS);
    for table in tables {
        cluster.sql(&format!(
            "create trigger zz_witness after insert or update or delete on {table}
             for each row execute function witness('{table}')"
        ));
    }
}

/// All changes, those of one row in order.
pub fn committed(cluster: &Cluster) -> Vec<Change> {
    let mut session = cluster.connect("postgres");
    let rows = session.query(
        "select place, tab, kind, source, old::text, record::text, began from witnessed order by place",
        &[],
    );
    let rows = rows.expect("what was witnessed can be read");
    let parsed = |text: &str| serde_json::from_str(text).expect("PostgreSQL writes JSON");
    rows.iter()
        .map(|row| {
            let record_text: String = row.get(5);
            Change {
                place: row.get(0),
                began: row.get(6),
                table: row.get(1),
                kind: row.get(2),
                source: row.get(3),
                old: row.get::<_, Option<&str>>(4).map(parsed),
                record: parsed(&record_text),
                record_text,
            }
        })
        .collect()
}
