use super::*;
use clap::Parser;
use std::io::Write;

/// `--config` and the settings, as the command line has them.
#[derive(Parser)]
struct Line {
    #[arg(long)]
    config: Option<PathBuf>,
    #[command(flatten)]
    settings: Settings,
}

fn load(args: &[&str], environment: &[(&str, &str)]) -> Result<NodeConfig, String> {
    let line = Line::try_parse_from([&["ringdove"], args].concat()).map_err(|e| e.to_string())?;
    let environment = environment.iter().map(|(name, value)| (name.into(), value.into()));
    NodeConfig::load(line.config, line.settings, environment).map_err(|e| e.to_string())
}

/// All of a configuration but its secrets, for comparing.
fn shown(config: &NodeConfig) -> String {
    format!("{config:#?}")
}

fn file(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

/// Loads `text` as the configuration file and gives the refusal, without the file's name.
fn refusal(text: &str) -> String {
    let file = file(text);
    let path = file.path().to_str().unwrap();
    load(&["--config", path], &[]).unwrap_err().replace(path, "FILE")
}

#[test]
fn nothing_given_is_the_default() {
    assert_eq!(shown(&load(&[], &[]).unwrap()), shown(&NodeConfig::default()));
    assert_eq!(NodeConfig::default().check(), Ok(()));
    assert_eq!(NodeConfig::default().warnings(), Vec::<String>::new());
}

#[test]
fn flag_beats_variable_beats_file_beats_default() {
    let file = file("max-memory = '1gb'\nweight = 7\nname = 'from-file'\n");
    let config = ["--config", file.path().to_str().unwrap()];
    let variables = [("RINGDOVE_NAME", "from-variable"), ("RINGDOVE_WEIGHT", "8")];
    let loaded = load(&[&config[..], &["--name", "from-flag"]].concat(), &variables).unwrap();
    assert_eq!(loaded.name.as_deref(), Some("from-flag"));
    assert_eq!(loaded.weight, 8);
    assert_eq!(loaded.memory_bytes_max, 1 << 30);
    assert_eq!(loaded.cluster.partitions, 1024);
}

#[test]
fn every_setting_can_come_from_every_source() {
    let secret = file("correct horse battery staple\n");
    let secret = secret.path().to_str().unwrap();
    let all = [
        ("seed", "a.lan:7379"),
        ("name", "n1"),
        ("zone", "z"),
        ("replicas", "3"),
        ("min-copies", "1"),
        ("partitions", "256"),
        ("survival", "majority"),
        ("weight", "50"),
        ("witness", "false"),
        ("resp", "0.0.0.0:1"),
        ("quic", "[::]:2"),
        ("admin", "127.0.0.1:3"),
        ("advertise", "b.lan:7379"),
        ("secret-file", secret),
        ("require-pass-file", secret),
        ("resp-tls", "true"),
        ("resp-tls-cert", "c.pem"),
        ("resp-tls-key", "k.pem"),
        ("max-memory", "2GiB"),
        ("eviction", "volatile-ttl"),
        ("max-key-size", "1kb"),
        ("max-value-size", "1mb"),
        ("max-clients", "9"),
        ("op-timeout", "2s"),
        ("resp-redirect", "true"),
        ("enable-debug-command", "true"),
        ("unbatched-replication", "1"),
        ("drain-timeout", "9s"),
        ("copy-rate", "100mb"),
        ("log", "debug"),
        ("log-format", "plain"),
    ];
    let covered: Vec<String> = all.iter().map(|(key, _)| key.replace('-', "_")).collect();
    let missing: Vec<_> = Settings::KEYS.iter().filter(|key| !covered.iter().any(|c| c == *key)).collect();
    assert_eq!(missing, [&"certs"], "`certs` excludes `secret-file`");

    let flags: Vec<String> = all.iter().map(|(key, value)| format!("--{key}={value}")).collect();
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let by_flags = shown(&load(&flags, &[]).unwrap());

    let variables: Vec<(String, &str)> = all
        .iter()
        .map(|(key, value)| (format!("RINGDOVE_{}", key.replace('-', "_").to_uppercase()), *value))
        .collect();
    let variables: Vec<(&str, &str)> = variables.iter().map(|(k, v)| (k.as_str(), *v)).collect();
    assert_eq!(shown(&load(&[], &variables).unwrap()), by_flags);

    let lines: String = all.iter().map(|(key, value)| format!("{key} = '{value}'\n")).collect();
    let toml = file(&lines);
    let path = toml.path().to_str().unwrap();
    assert_eq!(shown(&load(&["--config", path], &[]).unwrap()), by_flags);
    assert_eq!(shown(&load(&[], &[("RINGDOVE_CONFIG", path)]).unwrap()), by_flags);
}

#[test]
fn toml_has_its_own_types_too() {
    let file = file(
        "# a node\nseed = ['a:1', 'b:2']\nmax_memory = 1_048_576\nwitness = true\nreplicas = 3 # copies\n",
    );
    let loaded = load(&["--config", file.path().to_str().unwrap()], &[]).unwrap();
    assert_eq!(loaded.seeds.len(), 2);
    assert_eq!(loaded.memory_bytes_max, 1 << 20);
    assert!(loaded.is_witness());
    assert_eq!(loaded.cluster.replicas, 3);
}

#[test]
fn lists_of_seeds() {
    let seeds = |config: NodeConfig| config.seeds.iter().map(HostPort::to_string).collect::<Vec<_>>();
    assert_eq!(seeds(load(&["--seed", "a:1", "--seed", "b:2"], &[]).unwrap()), ["a:1", "b:2"]);
    assert_eq!(seeds(load(&[], &[("RINGDOVE_SEED", "a:1, b:2")]).unwrap()), ["a:1", "b:2"]);
}

#[test]
fn the_file_is_refused_with_line_and_reason() {
    assert_eq!(
        refusal("name = 'a'\n\nmax-memry = '1gb'\n"),
        "FILE, line 3: unknown key `max-memry`; did you mean `max-memory`?\n  3 | max-memry = '1gb'"
    );
    assert!(
        refusal("zebra-crossing = 1")
            .contains("line 1: unknown key `zebra-crossing`; `ringdove node --help`")
    );
    assert!(
        refusal("name = 'a'\nmax-memory = '12 parsecs'")
            .starts_with("FILE, line 2: `12 parsecs` is not a size")
    );
    assert!(refusal("\npartitions = 1000").starts_with("FILE, line 2: `1000` is not a power of two"));
    assert!(refusal("name = ['a', 'b']").starts_with("FILE, line 1: takes one value"));
    assert!(refusal("name = 2026-01-01").starts_with("FILE, line 1: is of type datetime"));
    assert!(refusal("\n\n[node]\nname = 'a'").starts_with("FILE, line 3: unknown key `node`"));
    assert!(refusal("name = 'a'\nname = 'b'").starts_with("FILE, line 2:"));
    assert!(refusal("op_timeout = '1s'\nop-timeout = '2s'").contains("`op-timeout` is set twice"));
    assert!(refusal("name = 'a'\nthis is not toml").starts_with("FILE, line 2:"));
    // A contradiction between two lines is reported at the one to change.
    assert!(refusal("replicas = 2\nmin-copies = 3").starts_with("FILE, line 2: 3 copies for a write"));
}

#[test]
fn variables_are_refused_by_name() {
    let refused = |name, value| load(&[], &[(name, value)]).unwrap_err();
    assert_eq!(
        refused("RINGDOVE_REPLICA", "3"),
        "RINGDOVE_REPLICA: unknown setting `replica`; did you mean `replicas`?"
    );
    assert!(
        refused("RINGDOVE_REPLICAS", "9")
            .starts_with("RINGDOVE_REPLICAS: `9` is not a whole number from 1 to 8")
    );
    assert!(load(&[], &[("RINGDOVE_SERVICE_HOST", "10.0.0.1")]).is_ok());
}

#[test]
fn flags_are_refused_by_name() {
    let refused = |args: &[&str]| load(args, &[]).unwrap_err();
    assert!(refused(&["--max-memory", "lots"]).contains("`lots` is not a size"));
    assert!(refused(&["--replicas", "1", "--min-copies", "2"]).starts_with("--min-copies: 2 copies"));
    assert!(refused(&["--witness"]).starts_with("--witness: a witness"));
    assert!(refused(&["--seed", "a:0"]).starts_with("--seed: a:0 has port 0"));
    assert!(refused(&["--advertise", "127.0.0.1:0"]).starts_with("--advertise: "));
    assert!(refused(&["--resp", "127.0.0.1:5", "--admin", "127.0.0.1:5"]).starts_with("--admin: "));
    assert!(refused(&["--max-value-size", "1gb"]).starts_with("--max-value-size: "));
    assert!(refused(&["--max-memory", "512"]).contains("was a unit forgotten?"));
    assert!(refused(&["--resp-tls-cert", "c.pem", "--resp-tls"]).contains("needs --resp-tls-key"));
    assert!(refused(&["--op-timeout", "1ms"]).contains("from 10ms to 10m"));
}

#[test]
fn one_copy_in_all_is_allowed() {
    assert_eq!(load(&["--replicas", "1"], &[]).unwrap().cluster.min_copies, 1);
}

#[test]
fn other_machines_need_a_secret() {
    for open in [
        ["--resp", "0.0.0.0:0"],
        ["--quic", "[::]:0"],
        ["--admin", "10.1.2.3:0"],
        ["--advertise", "db1.lan:1"],
    ] {
        let reason = load(&open, &[]).unwrap_err();
        assert!(reason.starts_with(&format!("{}: ", open[0])), "{reason}");
        assert!(reason.contains("--secret-file"), "{reason}");
        assert!(load(&open, &[("RINGDOVE_SECRET", "correct horse battery staple")]).is_ok());
        assert!(load(&[&open[..], &["--certs", "certs"]].concat(), &[]).is_ok());
    }
    assert!(load(&["--resp", "127.0.0.2:0", "--quic", "[::1]:0", "--admin", "localhost:0"], &[]).is_ok());
}

#[test]
fn secrets_are_read_and_never_shown() {
    let secret = file("correct horse battery staple\n");
    let path = secret.path().to_str().unwrap();
    let loaded = load(&["--secret-file", path], &[]).unwrap();
    assert!(matches!(loaded.credentials, Credentials::Secret(_)));
    assert!(!format!("{loaded:?}").contains("horse"));

    let short = load(&[], &[("RINGDOVE_SECRET", "hunter2")]).unwrap_err();
    assert!(
        short.starts_with("RINGDOVE_SECRET: ") && short.contains("at least 16") && !short.contains("hunter2"),
        "{short}"
    );
    let both = load(&["--secret-file", path, "--certs", "certs"], &[]).unwrap_err();
    assert!(both.starts_with("--certs: give either"), "{both}");
    assert!(load(&["--secret-file", "/nowhere/secret"], &[]).unwrap_err().contains("/nowhere/secret"));
    let empty = file("\n");
    assert!(
        load(&["--require-pass-file", empty.path().to_str().unwrap()], &[]).unwrap_err().contains("is empty")
    );
}

#[test]
fn open_doors_are_warned_about() {
    let config = load(
        &["--resp", "0.0.0.0:0", "--eviction", "allkeys-lru"],
        &[("RINGDOVE_SECRET", "correct horse battery staple")],
    )
    .unwrap();
    let warnings = config.warnings().join("\n");
    assert!(warnings.contains("--require-pass-file"));
    assert!(warnings.contains("--max-memory"));
}

#[test]
fn a_node_has_a_name() {
    let quic = "127.0.0.1:7379".parse().unwrap();
    assert!(NodeConfig::default().name_for(quic).ends_with("-7379"));
    assert_eq!(load(&["--name", "a"], &[]).unwrap().name_for(quic), "a");
}
