use proptest::prelude::*;

use super::*;

fn server(number: usize, weight: u16) -> Server {
    Server { name: format!("10.0.{}.{}:80", number / 250, number % 250), weight, backup: false }
}

/// For each entry, the name of its server.
fn entries(servers: &[Server]) -> Vec<&str> {
    let maglev = Maglev::new(HashBy::Source, servers);
    maglev.order(0, false).map(|place| servers[place].name.as_str()).collect()
}

fn share(entries: &[&str], name: &str) -> f64 {
    entries.iter().filter(|entry| **entry == name).count() as f64 / ENTRIES as f64
}

#[test]
fn the_table_and_the_hashes_are_settled_for_all_nodes_and_versions() {
    let servers: Vec<_> = (1..=3).map(|number| server(number, 1)).collect();
    let maglev = Maglev::new(HashBy::ServerName, &servers);
    let of = |source: &str, server_name| {
        let client = Client { source: source.parse().expect("an address"), server_name };
        let hash = maglev.of(&client);
        (hash, maglev.order(hash, false).next())
    };
    // Computed from the description at the head of the module by another implementation, in
    // Python, whose SipHash agrees with the example in the paper's appendix A.
    assert_eq!(of("192.0.2.1", None), (0xb82a_0a51_d207_4a61, Some(2)));
    assert_eq!(of("::ffff:192.0.2.1", None), of("192.0.2.1", None));
    assert_eq!(of("2001:db8::1", None), (0x28c6_5418_624b_b243, Some(1)));
    let of_name = (0xec87_4cd5_6ed8_dbe3, Some(2));
    assert_eq!(of("192.0.2.1", Some("www.example.com")), of_name);
}

#[test]
fn the_order_of_the_servers_in_the_file_does_not_matter() {
    let mut servers: Vec<_> = (0..20).map(|number| server(number, 1 + number as u16 % 3)).collect();
    let before: Vec<String> = entries(&servers).into_iter().map(str::to_owned).collect();
    servers.reverse();
    assert_eq!(entries(&servers), before);
}

#[test]
fn by_address_a_client_is_known_whatever_name_it_asks_for() {
    let maglev = Maglev::new(HashBy::Source, &[server(1, 1)]);
    let source = "192.0.2.1".parse().expect("an address");
    let hash = |server_name| maglev.of(&Client { source, server_name });
    assert_eq!(hash(None), hash(Some("a.example")));
}

#[test]
fn by_name_clients_of_one_name_are_one_and_those_without_are_apart() {
    let maglev = Maglev::new(HashBy::ServerName, &[server(1, 1)]);
    let hash = |source: [u8; 4], server_name| {
        maglev.of(&Client { source: IpAddr::from(source), server_name })
    };
    let (one, other) = ([192, 0, 2, 1], [192, 0, 2, 2]);
    assert_eq!(hash(one, Some("a.example")), hash(other, Some("a.example")));
    assert_ne!(hash(one, Some("a.example")), hash(one, Some("b.example")));
    assert_ne!(hash(one, None), hash(other, None));
}

#[test]
fn the_largest_table_gives_every_server_its_share() {
    let servers: Vec<_> = (0..128).map(|number| server(number, 1)).collect();
    let entries = entries(&servers);
    for server in &servers {
        let share = share(&entries, &server.name) * 128.0;
        assert!((0.99..1.01).contains(&share), "{server:?} has {share}");
    }
}

#[test]
fn the_lightest_of_many_heavy_servers_has_an_entry() {
    let servers: Vec<_> =
        (0..128).map(|number| server(number, if number == 0 { 1 } else { 256 })).collect();
    assert!(share(&entries(&servers), &servers[0].name) > 0.0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn shares_are_those_of_the_weights(
        weights in proptest::collection::vec(1_u16..=20, 1..30),
    ) {
        let servers: Vec<_> =
            weights.iter().enumerate().map(|(number, weight)| server(number, *weight)).collect();
        let entries = entries(&servers);
        let sum: f64 = weights.iter().map(|weight| f64::from(*weight)).sum();
        for server in &servers {
            let wanted = f64::from(server.weight) / sum;
            let found = share(&entries, &server.name);
            prop_assert!((found / wanted - 1.0).abs() < 0.02, "{found} of {wanted}");
        }
    }

    #[test]
    fn a_server_that_goes_moves_hardly_any_clients_of_the_others(
        count in 2_usize..40,
        gone in any::<prop::sample::Index>(),
        weights in proptest::collection::vec(1_u16..=4, 40),
    ) {
        let all: Vec<_> = (0..count).map(|number| server(number, weights[number])).collect();
        let gone = gone.index(count);
        let mut rest = all.clone();
        rest.remove(gone);
        let (before, after) = (entries(&all), entries(&rest));
        let stayed = before.iter().zip(&after).filter(|(before, _)| **before != all[gone].name);
        let (mut of_others, mut moved) = (0, 0);
        for (before, after) in stayed {
            of_others += 1;
            moved += usize::from(before != after);
        }
        prop_assert!(moved * 100 <= of_others * 5, "{moved} of {of_others} moved");
    }
}
