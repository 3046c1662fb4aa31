//! The page is checked by a strict reader of the format, written here from the
//! OpenMetrics 1.0 ABNF, and against every cell there is.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::LazyLock;
use std::time::Duration;

use super::*;
use crate::endpoint::Endpoint;
use crate::metrics::{Counter, Gauge};
use crate::tls::CryptoLibrary;
use crate::tls::certificates::CertificateName;
use crate::tls::policy::candidate::Verdict;
use crate::tls::self_signed::self_signed;
use crate::upstream::status::{Availability, CheckCounts, ServerCounts, Standing};
use crate::upstream::{Backend, Pool};

/// Printed only if there is a log.
const LOG_LINES_DROPPED: &str = "forebay_log_lines_dropped_total";

/// What the reader makes of a page: samples by name and labels.
struct Read {
    types: BTreeMap<String, String>,
    helps: BTreeSet<String>,
    samples: BTreeMap<(String, BTreeMap<String, String>), f64>,
}

impl Read {
    fn value(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let labels = labels.iter().map(|(key, value)| (key.to_string(), value.to_string()));
        self.samples.get(&(name.to_owned(), labels.collect())).copied()
    }

    fn count(&self, name: &str) -> usize {
        self.samples.keys().filter(|(sample, _)| sample == name).count()
    }
}

/// Reads a page and asserts every rule of the format that it knows.
fn read(page: &str) -> Read {
    let body = page.strip_suffix("# EOF\n").expect("the page ends with # EOF");
    assert!(!body.contains("# EOF"));
    let mut read =
        Read { types: BTreeMap::new(), helps: BTreeSet::new(), samples: BTreeMap::new() };
    let mut family = String::new();
    for line in body.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').expect("a name and a help");
            assert!(!help.is_empty() && !help.ends_with('.'), "help of {name}");
            assert!(read.helps.insert(name.to_owned()), "{name} has one HELP");
            family = name.to_owned();
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').expect("a name and a type");
            assert_eq!(name, family, "TYPE follows HELP of the same family");
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{kind}");
            assert!(is_metric_name(name), "{name}");
            assert!(read.types.insert(name.to_owned(), kind.to_owned()).is_none());
        } else {
            let (name, labels, value) = read_sample(line);
            let suffix = name.strip_prefix(&family).unwrap_or_else(|| {
                panic!("{name} stands in family {family}: families must not interleave")
            });
            let expected: &[&str] = match read.types[&family].as_str() {
                "counter" => &["_total"],
                "gauge" => &[""],
                _ => &["_sum", "_count", "_bucket"],
            };
            assert!(expected.contains(&suffix), "{name} has the suffix of its type");
            if read.types[&family] == "counter" {
                assert!(value >= 0.0 && value.is_finite(), "{line}");
            }
            let earlier = read.samples.insert((name.clone(), labels), value);
            assert!(earlier.is_none(), "{line} is a series of its own");
        }
    }
    assert_eq!(read.helps, read.types.keys().cloned().collect());
    check_histograms(&read);
    read
}

fn is_metric_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_')
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

fn read_sample(line: &str) -> (String, BTreeMap<String, String>, f64) {
    let name_end = line.find(['{', ' ']).expect("a name ends");
    let (name, mut rest) = line.split_at(name_end);
    assert!(is_metric_name(name), "{line}");
    let mut labels = BTreeMap::new();
    if let Some(mut inside) = rest.strip_prefix('{') {
        loop {
            let (key, after) = inside.split_once("=\"").expect("a label");
            assert!(is_metric_name(key), "{line}");
            let mut value = String::new();
            let mut characters = after.char_indices();
            let end = loop {
                match characters.next().expect("the value ends") {
                    (_, '\\') => value.push(match characters.next().expect("an escape").1 {
                        'n' => '\n',
                        '\\' => '\\',
                        '"' => '"',
                        other => panic!("escape {other} in {line}"),
                    }),
                    (at, '"') => break at,
                    (_, character) => value.push(character),
                }
            };
            assert!(labels.insert(key.to_owned(), value).is_none(), "{line}: {key} once");
            let after = &after[end + 1..];
            if let Some(next) = after.strip_prefix(',') {
                inside = next;
            } else {
                rest = after.strip_prefix('}').expect("labels end");
                break;
            }
        }
    }
    let value = rest.strip_prefix(' ').expect("one space before the value");
    let value = if value == "+Inf" { f64::INFINITY } else { value.parse().expect("a number") };
    (name.to_owned(), labels, value)
}

fn check_histograms(read: &Read) {
    for (family, _) in read.types.iter().filter(|(_, kind)| *kind == "histogram") {
        let mut series: BTreeMap<BTreeMap<String, String>, Vec<(f64, f64)>> = BTreeMap::new();
        for ((name, labels), value) in &read.samples {
            if *name == format!("{family}_bucket") {
                let mut labels = labels.clone();
                let bound = labels.remove("le").expect("a bucket has a bound");
                let bound = if bound == "+Inf" {
                    f64::INFINITY
                } else {
                    bound.parse().expect("a bound is a number")
                };
                series.entry(labels).or_default().push((bound, *value));
            }
        }
        assert!(!series.is_empty(), "{family} has buckets");
        for (labels, mut buckets) in series {
            buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
            assert_eq!(buckets.len(), HISTOGRAM_BUCKETS);
            assert!(buckets.is_sorted_by(|a, b| a.1 <= b.1), "{family}: cumulative");
            let last = buckets.last().expect("a bucket");
            assert!(last.0.is_infinite(), "{family} ends with +Inf");
            let count = read.samples[&(format!("{family}_count"), labels.clone())];
            assert!((last.1 - count).abs() < 0.5, "{family}: +Inf is the count");
            assert!(read.samples.contains_key(&(format!("{family}_sum"), labels)));
        }
    }
}

struct Fixture {
    engines: Vec<Arc<EngineMetrics>>,
    workers: Vec<Arc<WorkerMetrics>>,
    control: Arc<ControlCells>,
    certificates: Arc<Certificates>,
    pools: Arc<Pools>,
    page: Page,
}

fn fixture(engines: usize, workers: usize) -> Fixture {
    let engines: Vec<_> = (0..engines).map(|_| Arc::new(EngineMetrics::default())).collect();
    let workers: Vec<_> = (0..workers).map(|_| Arc::new(WorkerMetrics::default())).collect();
    let control = Arc::new(ControlCells::default());
    let certificates = Arc::new(Certificates::default());
    let pools = Arc::new(Pools::default());
    let page = Page::new(Sources {
        engines: engines.clone(),
        workers: workers.clone(),
        control: Arc::clone(&control),
        sizes: Sizes {
            engines: engines.len(),
            workers: workers.len(),
            connections_max: 9_000,
            buffers: 128,
            buffer_bytes: 17 * 1_024,
            handshakes_max: 512,
            handshake_rates: vec![("rsa-2048".to_owned(), 1_900.0)],
        },
        log_lines_dropped: None,
        certificates: Arc::clone(&certificates),
        pools: Arc::clone(&pools),
        names: Arc::default(),
        served: Arc::default(),
    });
    Fixture { engines, workers, control, certificates, pools, page }
}

#[test]
fn a_fresh_page_is_valid_and_shows_every_family_but_zero_handshakes() {
    let fixture = fixture(2, 2);
    let read = read(&fixture.page.print(Format::OpenMetrics));
    for (name, kind) in [
        ("forebay_build_info", "gauge"),
        ("forebay_uptime_seconds", "gauge"),
        ("forebay_connections_accepted", "counter"),
        ("forebay_connections", "gauge"),
        ("forebay_connections_ended", "counter"),
        ("forebay_handshake_capacity_per_second", "gauge"),
        ("forebay_handshake_backlog_seconds", "gauge"),
        ("forebay_handshakes", "counter"),
        ("forebay_handshake_failures", "counter"),
        ("forebay_handshakes_shed", "counter"),
        ("forebay_handshake_duration_seconds", "histogram"),
        ("forebay_handshake_queue_wait_seconds", "histogram"),
        ("forebay_handshake_step_seconds", "histogram"),
        ("forebay_relayed_bytes", "counter"),
        ("forebay_completion_overflows", "counter"),
        ("forebay_certificate_expiry_timestamp_seconds", "gauge"),
        ("process_resident_memory_bytes", "gauge"),
        ("process_open_fds", "gauge"),
        ("process_start_time_seconds", "gauge"),
        ("process_cpu_seconds", "counter"),
    ] {
        assert_eq!(read.types.get(name).map(String::as_str), Some(kind), "{name}");
    }
    assert_eq!(read.count("forebay_handshakes_total"), 0);
    assert_eq!(read.count("forebay_handshake_failures_total"), 2 * FailureReason::ALL.len());
    let (_, build) =
        read.samples.keys().find(|(name, _)| name == "forebay_build_info").expect("what was built");
    assert_eq!(build["version"], env!("CARGO_PKG_VERSION"));
    assert!(build["aws_lc_rs"].contains('.') && build["ring"].contains('.'), "{build:?}");
}

#[test]
fn a_page_without_engines_and_workers_is_valid() {
    // The histograms have no series then, which the format allows.
    let page = fixture(0, 0).page.print(Format::OpenMetrics);
    assert!(page.ends_with("# EOF\n"));
    assert!(page.contains("forebay_engines 0\n"));
}

#[test]
fn every_cell_of_an_engine_is_on_the_page() {
    let fixture = fixture(1, 1);
    // Taken apart without `..`: a new cell does not compile until it is printed.
    let EngineMetrics {
        accepted,
        proxy_headers_received,
        header_certificates_left_out,
        header_values_left_out,
        passed_through,
        connections,
        established,
        handshakes_in_progress,
        backlog_us,
        crowded,
        ended,
        shed,
        sources,
        handshakes,
        client_certificates,
        failures,
        shed_queue_full,
        handshake_time,
        bytes_from_clients,
        bytes_to_clients,
        records_opened,
        records_sealed,
        truncations,
        server_handshakes,
        server_handshake_failures,
        server_truncations,
        upstream_connected,
        upstream_failed,
        upstream_connections,
        server_queued,
        server_queue,
        buffers_in_use,
        buffers_exhausted,
        completion_overflows,
        accept_failures,
        turns,
        completions,
    } = &*fixture.engines[0];
    let mut marks = Marks::default();
    for cell in [
        accepted,
        proxy_headers_received,
        header_certificates_left_out,
        header_values_left_out,
        passed_through,
        bytes_from_clients,
        bytes_to_clients,
        records_opened,
        records_sealed,
        truncations,
        server_truncations,
        upstream_connected,
        upstream_failed,
        server_queued,
        buffers_exhausted,
        completion_overflows,
        accept_failures,
        turns,
        completions,
    ] {
        marks.counter(cell);
    }
    let failures = failures.iter().chain(server_handshakes).chain(server_handshake_failures);
    for cell in
        ended.iter().chain(shed).chain(failures).chain(shed_queue_full).chain(client_certificates)
    {
        marks.counter(cell);
    }
    for cell in handshakes.as_flattened().as_flattened() {
        marks.counter(cell);
    }
    for cell in [
        connections,
        sources,
        established,
        handshakes_in_progress,
        crowded,
        upstream_connections,
        server_queue,
        buffers_in_use,
    ] {
        marks.gauge(cell);
    }
    for _ in 0..marks.next() {
        handshake_time.record(Duration::from_millis(3));
    }
    backlog_us.set(12_500);
    let page = fixture.page.print(Format::OpenMetrics);
    assert!(page.contains("forebay_handshake_backlog_seconds{engine=\"0\"} 0.0125\n"), "{page}");
    marks.assert_all_on(&read(&page), ("engine", "0"));
}

#[test]
fn every_cell_of_a_server_is_on_the_page_and_servers_are_counted_by_state() {
    let fixture = fixture(2, 1);
    let backend = |port| Backend::new(Endpoint::Inet(([10, 0, 0, 1], port).into()), 2);
    let backends = vec![backend(80), backend(81), backend(82)];
    let pool = Pool { check: Some(Arc::default()), ..Pool::new("web", backends) };
    let standing = Standing { availability: Availability::Ejected, ..Standing::INITIAL };
    pool.backends[1].status.set_standing(standing);
    for engine in 0..2 {
        let ServerCounts { open, connected, failed, reset_early } =
            pool.backends[0].status.of_engine(engine);
        open.set(10);
        connected.add(20);
        failed.add(30);
        reset_early.add(40);
    }
    let CheckCounts { passed, failed, taken_out, agent_failed } = pool.backends[0].status.checks();
    passed.add(50);
    failed.add(60);
    taken_out.add(70);
    agent_failed.add(80);
    fixture.pools.replace(vec![Arc::new(pool)]);
    let page = fixture.page.print(Format::PrometheusText);
    for line in [
        "forebay_pool_servers{pool=\"web\",state=\"up\"} 2\n",
        "forebay_pool_servers{pool=\"web\",state=\"down\"} 0\n",
        "forebay_pool_servers{pool=\"web\",state=\"ejected\"} 1\n",
        "forebay_server_connections{pool=\"web\",server=\"10.0.0.1:80\"} 20\n",
        "forebay_server_connected_total{pool=\"web\",server=\"10.0.0.1:80\"} 40\n",
        "forebay_server_connect_failures_total{pool=\"web\",server=\"10.0.0.1:80\"} 60\n",
        "forebay_server_early_resets_total{pool=\"web\",server=\"10.0.0.1:80\"} 80\n",
        "forebay_server_checks_passed_total{pool=\"web\",server=\"10.0.0.1:80\"} 50\n",
        "forebay_server_checks_failed_total{pool=\"web\",server=\"10.0.0.1:80\"} 60\n",
        "forebay_server_checks_taken_out_total{pool=\"web\",server=\"10.0.0.1:80\"} 70\n",
        "forebay_server_agent_failures_total{pool=\"web\",server=\"10.0.0.1:80\"} 80\n",
        "forebay_server_connections{pool=\"web\",server=\"10.0.0.1:82\"} 0\n",
    ] {
        assert!(page.contains(line), "{line} in {page}");
    }
}

#[test]
fn of_very_many_servers_the_first_ones_have_series() {
    let fixture = fixture(1, 1);
    let pool = |number: usize| {
        let backend = |port| Backend::new(Endpoint::Inet(([10, 0, 0, 1], port).into()), 1);
        Arc::new(Pool::new(&format!("pool-{number}"), (1..=128).map(backend).collect()))
    };
    fixture.pools.replace((0..20).map(pool).collect());
    let page = fixture.page.print(Format::PrometheusText);
    assert_eq!(page.matches("forebay_server_connections{").count(), pools::SERVERS_SHOWN_MAX);
    assert_eq!(page.matches("forebay_pool_servers{").count(), 20 * Availability::ALL.len());
}

#[test]
fn every_cell_of_a_worker_is_on_the_page() {
    let fixture = fixture(1, 1);
    let WorkerMetrics {
        steps,
        shed_queue_full,
        shed_expired,
        shed_client_gone,
        newest_first,
        tickets_offered,
        tickets_accepted,
        tickets_ahead,
        tickets_refused,
        queue_wait,
        step_time,
        fingerprints,
    } = &*fixture.workers[0];
    let mut marks = Marks::default();
    let shed = shed_queue_full.iter().chain(shed_expired).chain(shed_client_gone);
    let tickets = tickets_refused.iter().chain([tickets_offered, tickets_accepted, tickets_ahead]);
    for cell in steps.iter().chain(shed).chain([newest_first]).chain(tickets) {
        marks.counter(cell);
    }
    for histogram in [queue_wait, step_time] {
        for _ in 0..marks.next() {
            histogram.record(Duration::from_micros(70));
        }
    }
    let ja4 = "t13d1516h2_8daaf6152771_e5627efa2ab1";
    fingerprints.count(&ja4.parse().expect("a fingerprint"));
    let page = fixture.page.print(Format::OpenMetrics);
    let counted = format!("forebay_client_fingerprint_handshakes{{ja4=\"{ja4}\"}} 1\n");
    assert!(page.contains(&counted), "{page}");
    marks.assert_all_on(&read(&page), ("worker", "0"));
}

#[test]
fn every_cell_of_the_control_thread_is_on_the_page() {
    let fixture = fixture(1, 1);
    let ControlCells {
        snapshot_generation,
        snapshot_loaded_unix_seconds,
        reloads_succeeded,
        reloads_failed,
        last_reload_succeeded,
        draining,
        events_dropped,
        server_ejections,
        pools_out,
        checks_late,
        session_epoch,
        session_secrets,
        session_secrets_usable,
        session_secret_changes,
        session_ratchet_failures,
    } = &*fixture.control;
    let mut marks = Marks::default();
    for cell in [
        reloads_succeeded,
        reloads_failed,
        events_dropped,
        server_ejections,
        checks_late,
        session_secret_changes,
        session_ratchet_failures,
    ] {
        marks.counter(cell);
    }
    for cell in [
        snapshot_generation,
        snapshot_loaded_unix_seconds,
        last_reload_succeeded,
        draining,
        pools_out,
        session_epoch,
        session_secrets,
        session_secrets_usable,
    ] {
        marks.gauge(cell);
    }
    let read = read(&fixture.page.print(Format::OpenMetrics));
    for mark in marks.all() {
        assert!(read.samples.values().any(|value| (value - mark).abs() < 0.5), "{mark}");
    }
}

#[test]
fn a_handshake_is_counted_under_what_was_negotiated() {
    use crate::handshake::SessionFacts;
    use crate::tls::Version;

    let fixture = fixture(1, 1);
    let facts = SessionFacts {
        version: Version::Tls12,
        cipher_suite: 0xc02f,
        group: None,
        resumed: true,
        signature_scheme: None,
        certificate: None,
        alpn: None,
        server_name: None,
    };
    fixture.engines[0].handshake(&facts).expect("a known suite").increment();
    let read = read(&fixture.page.print(Format::OpenMetrics));
    assert_eq!(read.count("forebay_handshakes_total"), 1);
    let labels = [
        ("engine", "0"),
        ("version", "TLSv1.2"),
        ("cipher", "ECDHE-RSA-AES128-GCM-SHA256"),
        ("group", "none"),
        ("resumed", "true"),
    ];
    assert_eq!(read.value("forebay_handshakes_total", &labels), Some(1.0));
}

#[test]
fn the_older_format_names_counters_in_full_and_has_no_end_mark() {
    let fixture = fixture(2, 1);
    fixture.engines[1].accepted.add(7);
    let page = fixture.page.print(Format::PrometheusText);
    let accepted = "# HELP forebay_connections_accepted_total Connections accepted\n\
                    # TYPE forebay_connections_accepted_total counter\n\
                    forebay_connections_accepted_total{engine=\"0\"} 0\n\
                    forebay_connections_accepted_total{engine=\"1\"} 7\n";
    assert!(page.contains(accepted), "{page}");
    assert!(!page.contains("EOF") && page.ends_with('\n'));
    // Every family is there, and nothing else is different.
    let open_metrics = fixture.page.print(Format::OpenMetrics);
    let samples = |page: &str| page.lines().filter(|line| !line.starts_with('#')).count();
    assert_eq!(samples(&page), samples(&open_metrics));
    assert_eq!(page.matches("# TYPE").count(), open_metrics.matches("# TYPE").count());
    for line in page.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let (name, kind) = line.split_once(' ').expect("a name and a type");
        assert_eq!(name.ends_with("_total"), kind == "counter", "{line}");
    }
}

#[test]
fn a_client_gets_the_format_that_it_asks_for() {
    let prometheus = "application/openmetrics-text;version=1.0.0;q=0.6,text/plain;q=0.4";
    assert_eq!(Format::accepted(prometheus), Format::OpenMetrics);
    for other in ["*/*", "text/plain", ""] {
        assert_eq!(Format::accepted(other), Format::PrometheusText);
    }
}

#[test]
fn bucket_bounds_are_in_seconds() {
    let fixture = fixture(1, 1);
    fixture.engines[0].handshake_time.record(Duration::from_micros(1_500));
    let read = read(&fixture.page.print(Format::OpenMetrics));
    let bucket =
        |bound| read.value("forebay_handshake_duration_seconds_bucket", &[("engine", "0"), bound]);
    assert_eq!(bucket(("le", "0.001024")), Some(0.0));
    assert_eq!(bucket(("le", "0.002048")), Some(1.0));
    assert_eq!(bucket(("le", "+Inf")), Some(1.0));
    let sum = read.value("forebay_handshake_duration_seconds_sum", &[("engine", "0")]);
    assert!((sum.expect("a sum") - 0.0015).abs() < 1e-9);
}

/// A certificate for `name` from `source` that ends then.
fn certificate(
    name: &str,
    source: &str,
    not_after: i64,
    staple_ends: Option<i64>,
) -> LoadedCertificate {
    static MODEL: LazyLock<LoadedCertificate> =
        LazyLock::new(|| self_signed(&["a.example"], CryptoLibrary::AwsLc).expect("made"));
    let names = [CertificateName::parse(name).expect("a name")];
    let source = Path::new(source).into();
    LoadedCertificate { source, names: names.into(), not_after, staple_ends, ..MODEL.clone() }
}

#[test]
fn the_certificates_that_end_soonest_are_shown_and_all_are_counted() {
    let fixture = fixture(1, 1);
    let all = (0..250).rev().map(|number: i64| {
        let staple_ends = (number < 150).then_some(1_800_000_000 - number);
        let (name, source) = (format!("{number}.example"), "/etc/forebay/all.pem");
        Arc::new(certificate(&name, source, 1_900_000_000 + number, staple_ends))
    });
    // As two listeners do that show the same.
    let all: Vec<_> = all.collect();
    fixture.certificates.replace([all.clone(), all].concat(), vec![]);
    let read = read(&fixture.page.print(Format::OpenMetrics));
    assert_eq!(read.value("forebay_certificates", &[]), Some(250.0));
    let name = "forebay_certificate_expiry_timestamp_seconds";
    assert_eq!(read.count(name), CERTIFICATES_SHOWN_MAX);
    let labels = [("name", "0.example"), ("source", "/etc/forebay/all.pem")];
    assert_eq!(read.value(name, &labels), Some(1_900_000_000.0));
    assert_eq!(read.value("forebay_ocsp_staples", &[]), Some(150.0));
    let name = "forebay_ocsp_staple_expiry_timestamp_seconds";
    assert_eq!(read.count(name), CERTIFICATES_SHOWN_MAX);
    let labels = [("name", "149.example"), ("source", "/etc/forebay/all.pem")];
    assert_eq!(read.value(name, &labels), Some(1_799_999_851.0));
}

#[test]
fn certificates_with_the_same_labels_are_one_series_and_strange_paths_are_escaped() {
    let fixture = fixture(1, 1);
    let one = |ends| Arc::new(certificate("a.example", "/srv/\"odd\"\\path\nhere", ends, None));
    fixture.certificates.replace(vec![one(7), one(5), one(6)], vec![]);
    let read = read(&fixture.page.print(Format::OpenMetrics));
    let name = "forebay_certificate_expiry_timestamp_seconds";
    assert_eq!(read.count(name), 1);
    let labels = [("name", "a.example"), ("source", "/srv/\"odd\"\\path\nhere")];
    assert_eq!(read.value(name, &labels), Some(5.0), "the soonest stands");
}

#[test]
fn a_page_of_64_busy_engines_stays_below_two_megabytes() {
    let fixture = fixture(64, 16);
    for engine in &fixture.engines {
        for cell in engine.handshakes.as_flattened().as_flattened().iter().take(20) {
            cell.add(u64::MAX / 2);
        }
    }
    let page = fixture.page.print(Format::OpenMetrics);
    assert!(page.len() < 2_000_000, "{}", page.len());
    read(&page);
}

#[test]
fn the_manual_and_the_alerts_name_what_is_on_the_page_and_the_manual_all_of_it() {
    const MANUAL: &str = include_str!("../../../docs/OPERATING.md");
    const ALERTS: &str = include_str!("../../../docs/examples/prometheus-alerts.yml");
    fn names(text: &str) -> BTreeSet<&str> {
        let words = text.split(|one: char| !one.is_ascii_alphanumeric() && one != '_');
        let names =
            words.filter(|word| ["forebay_", "process_"].iter().any(|of| word.starts_with(of)));
        names.map(|name| name.strip_suffix("_bucket").unwrap_or(name)).collect()
    }
    let page = fixture(1, 1).page.print(Format::PrometheusText);
    let families = page.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let families: BTreeSet<&str> = families.filter_map(|line| line.split(' ').next()).collect();
    // The page of a process has one more than the fixture's, which has no log.
    let on_the_page = |name: &&str| families.contains(name) || *name == LOG_LINES_DROPPED;
    for (text, what) in [(MANUAL, "the manual"), (ALERTS, "the alerts")] {
        let unknown: Vec<_> = names(text).into_iter().filter(|name| !on_the_page(name)).collect();
        assert!(unknown.is_empty(), "{what}: {unknown:?}");
    }
    let silent: Vec<_> = families.difference(&names(MANUAL)).copied().collect();
    assert!(silent.is_empty(), "the manual says nothing of {silent:?}");
}

#[test]
fn the_manual_names_every_reason_and_class() {
    const MANUAL: &str = include_str!("../../../docs/OPERATING.md");
    let ends = EndReason::ALL.iter().map(|reason| reason.label());
    let failures = FailureReason::ALL.iter().map(|reason| reason.label());
    let classes = CostClass::ALL.iter().map(|class| class.label());
    let causes = ShedCause::ALL.iter().map(|cause| cause.label());
    let tickets = Refused::ALL.iter().map(|cause| cause.label());
    let verdicts = Verdict::ALL.iter().map(|verdict| verdict.label());
    for label in ends.chain(failures).chain(classes).chain(causes).chain(tickets).chain(verdicts) {
        assert!(MANUAL.contains(&format!("`{label}`")), "{label}");
    }
}

/// Gives each cell a value of its own, to be found again on the page.
#[derive(Default)]
struct Marks(u32);

impl Marks {
    /// Far from what else stands on the page of a fresh process, and never a multiple.
    fn next(&mut self) -> u64 {
        self.0 += 1;
        10_007 + 13 * u64::from(self.0)
    }

    fn counter(&mut self, cell: &Counter) {
        cell.add(self.next());
    }

    fn gauge(&mut self, cell: &Gauge) {
        cell.set(self.next());
    }

    fn all(&self) -> impl Iterator<Item = f64> {
        (1..=self.0).map(|number| f64::from(10_007 + 13 * number))
    }

    fn assert_all_on(&self, read: &Read, label: (&str, &str)) {
        for mark in self.all() {
            let found = read
                .samples
                .iter()
                .filter(|((name, labels), value)| {
                    !name.ends_with("_bucket")
                        && labels.get(label.0).is_some_and(|number| number == label.1)
                        && (**value - mark).abs() < 0.5
                })
                .count();
            assert_eq!(found, 1, "the cell marked {mark} is on the page once");
        }
    }
}
