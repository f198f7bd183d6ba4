//! A scripted HTTP/1.1 receiver on 127.0.0.1, for the demo, the tests and the benchmarks.
//!
//! What it answers is said by the path it is called with (see `behaviour`), so
//! one receiver plays any number of good and bad endpoints. It shares no code
//! with the extension: signatures are checked by an implementation of its own.
//! A thread serves one connection; a fault on one connection ends that
//! connection only. It ends when it is killed or, with `--until-stdin-closes`,
//! together with the process that started it.

mod answer;
mod behaviour;
mod control;
mod exchange;
mod http;
mod journal;
mod options;
mod show;
mod tally;

use std::net::{Ipv4Addr, TcpListener};
use std::sync::Arc;
use std::time::Duration;
use std::{fs, io, process, thread};

use exchange::Receiver;
use options::Options;

/// Enough for the parser and the answers; with 2,000 connections the default of 2 MB would be 4 GB of address space.
const STACK_BYTES: usize = 256 * 1024;

/// How long to hold off when the process is out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(10);

fn main() {
    let options = match Options::parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(message) => {
            eprintln!("webhook-receiver: {message}\n{}", options::USAGE);
            process::exit(2);
        }
    };
    if let Err(error) = run(&options) {
        eprintln!("webhook-receiver: {error}");
        process::exit(1);
    }
}

fn run(options: &Options) -> io::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, options.port))?;
    let receiver = Arc::new(Receiver::new(options)?);
    if options.until_stdin_closes {
        thread::spawn(exit_with_stdin);
    }
    announce(options.announce.as_deref(), listener.local_addr()?.port())?;
    for stream in listener.incoming() {
        match stream {
            Ok(stream) => {
                let receiver = Arc::clone(&receiver);
                thread::Builder::new()
                    .stack_size(STACK_BYTES)
                    .spawn(move || receiver.serve(stream))?;
            }
            Err(error) => {
                eprintln!("webhook-receiver: cannot accept: {error}");
                thread::sleep(ACCEPT_PAUSE);
            }
        }
    }
    Ok(())
}

/// Says the port: on standard output, or in a file that appears complete.
fn announce(file: Option<&str>, port: u16) -> io::Result<()> {
    let Some(file) = file else {
        println!("{port}");
        return Ok(());
    };
    let draft = format!("{file}.new");
    fs::write(&draft, format!("{port}\n"))?;
    fs::rename(draft, file)
}

/// Ends this process when the one that holds the other end of stdin has gone.
fn exit_with_stdin() {
    // An error means the same as the end: nobody is there any more.
    let _ = io::copy(&mut io::stdin().lock(), &mut io::sink());
    process::exit(0);
}
