//! The command line.
//!
//! Only parses; a mistake is a message for the caller to print.

pub const USAGE: &str = "\
usage: webhook-receiver [--port N] [--announce FILE|stdout] [--log FILE] [--keep N] [--show]
                        [--secret whsec_...]... [--secret-file FILE] [--until-stdin-closes]

  --port N              port on 127.0.0.1; 0, the default, takes a free one
  --announce FILE       write the port to FILE (default: stdout)
  --log FILE            append every request to FILE, one JSON object a line
  --keep N              requests kept in memory for GET /_control/log (default 1000000)
  --show                print every POST in readable form
  --secret whsec_...    a secret to verify signatures with; may be repeated
  --secret-file FILE    more secrets, separated by white space; read again for each request
  --until-stdin-closes  exit when standard input is closed";

/// Enough for the largest test; at about 1 kB a request this is 1 GB.
const KEEP_DEFAULT: usize = 1_000_000;

pub struct Options {
    pub port: u16,
    pub announce: Option<String>,
    pub log: Option<String>,
    pub keep: usize,
    pub show: bool,
    pub secrets: Vec<String>,
    pub secret_file: Option<String>,
    pub until_stdin_closes: bool,
}

impl Options {
    pub fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut options = Self {
            port: 0,
            announce: None,
            log: None,
            keep: KEEP_DEFAULT,
            show: false,
            secrets: Vec::new(),
            secret_file: None,
            until_stdin_closes: false,
        };
        while let Some(name) = arguments.next() {
            let mut value = || arguments.next().ok_or(format!("{name} needs a value"));
            match name.as_str() {
                "--port" => options.port = number(&name, &value()?)?,
                "--announce" => options.announce = Some(value()?).filter(|file| file != "stdout"),
                "--log" => options.log = Some(value()?),
                "--keep" => options.keep = number(&name, &value()?)?,
                "--show" => options.show = true,
                "--secret" => options.secrets.push(value()?),
                "--secret-file" => options.secret_file = Some(value()?),
                "--until-stdin-closes" => options.until_stdin_closes = true,
                _ => return Err(format!("unknown argument {name}")),
            }
        }
        Ok(options)
    }
}

fn number<T: std::str::FromStr>(name: &str, value: &str) -> Result<T, String> {
    value
        .parse()
        .map_err(|_| format!("{name} needs a number, not {value}"))
}
