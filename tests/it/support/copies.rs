//! Copies of databases and clusters, as administrators make them.

use std::io::Write;
use std::process::Stdio;

use super::Cluster;

/// What pg_dump says of a database, as a script.
pub fn dump(cluster: &Cluster, database: &str, options: &[&str]) -> String {
    let output = cluster
        .client_program("pg_dump", database)
        .args(options)
        .output()
        .expect("pg_dump is there");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    String::from_utf8(output.stdout).expect("the dump is UTF-8")
}

/// Runs a dump in a database; the first error ends it.
pub fn restore(cluster: &Cluster, database: &str, script: &str) {
    let mut psql = cluster.client_program("psql", database);
    psql.args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-o", "/dev/null"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let mut child = psql.spawn().expect("psql is there");
    let mut input = child.stdin.take().expect("stdin is piped");
    // A pipe that breaks follows from psql's failure, which says more.
    let _ = input.write_all(script.as_bytes());
    drop(input);
    let output = child.wait_with_output().expect("psql ends");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}\n{}", cluster.log());
}
