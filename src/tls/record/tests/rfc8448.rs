//! The application records of RFC 8448 section 3 ("Simple 1-RTT Handshake"), byte for
//! byte, from its published traffic secrets.

use super::*;

const CLIENT_SECRET: &str = "9e40646ce79a7f9dc05af8889bce6552875afa0b06df0087f792ebb7c17504a5";
const SERVER_SECRET: &str = "a11af9f05531f856ad47116b45a950328204b4f44bfb6b3a4b4f1f3fcb631643";
const CLIENT_DATA: &str = "1703030043a23f7054b62c94d0affafe8228ba55cbefacea42f914aa66bcab3f2b\
    9819a8a5b46b395bd54a9a20441e2b62974e1f5a6292a2977014bd1e3deae63aeebb21694915e4";
const SERVER_DATA: &str = "17030300432e937e11ef4ac740e538ad36005fc4a46932fc3225d05f82aa1b36e3\
    0efaf97d90e6dffc602dcb501a59a8fcc49c4bf2e5f0a21c0047c2abf332540dd032e167c2955d";
const CLIENT_ALERT: &str = "1703030013c9872760655666b74d7ff1153efd6db6d0b0e3";
const SERVER_ALERT: &str = "1703030013b58fd67166ebf599d24720cfbe7efa7a8864a9";
const SERVER_TICKET: &str = "17030300de3a6b8f90414a97d6959c3487680de5134a2b240e6cffac116e95d41d\
    6af8f6b580dcf3d11d63c758db289a015940252f55713e061dc13e078891a38efbcf5753ad8ef170ad3c7353d1\
    6d9da773b9ca7f2b9fa1b6c0d4a3d03f75e09c30ba1e62972ac46f75f7b981be63439b2999ce13064615139891\
    d5e4c5b406f16e3fc181a77ca475840025db2f0a77f81b5ab05b94c01346755f69232c86519d86cbeeac87aac3\
    47d143f9605d64f650db4d023e70e952ca49fe5137121c74bc2697687e248746d6df353005f3bce18696129c81\
    53556b3b6c6779b37bf15985684f";

fn hex(text: &str) -> Vec<u8> {
    text.as_bytes()
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

fn keys(secret: &str, library: CryptoLibrary, sequence: u64) -> DirectionKeys {
    let secret = TrafficSecret::copy_of(&hex(secret)).unwrap();
    DirectionKeys::from_traffic_secret(Algorithm::Aes128Gcm, library, secret, sequence).unwrap()
}

/// The fifty bytes that both sides send.
fn payload() -> Vec<u8> {
    (0..50).collect()
}

#[test]
fn the_opener_reads_the_clients_records() {
    for library in LIBRARIES {
        let mut opener = Opener::new(keys(CLIENT_SECRET, library, 0)).unwrap();
        assert_eq!(open_data(&mut opener, &mut hex(CLIENT_DATA)), payload());
        assert_eq!(
            opener.open(&mut hex(CLIENT_ALERT)),
            Ok(Opened::CloseNotify { record_bytes: 24 })
        );
    }
}

#[test]
fn the_sealer_writes_the_servers_records() {
    for library in LIBRARIES {
        // Record 0 was the session ticket of the handshake.
        let mut sealer = Sealer::new(keys(SERVER_SECRET, library, 1)).unwrap();
        assert_eq!(seal(&mut sealer, &payload(), 16_384), hex(SERVER_DATA));
        let mut alert = [0; CONTROL_RECORD_BYTES_MAX];
        let bytes = sealer.alert(AlertDescription::CloseNotify, &mut alert).unwrap();
        assert_eq!(alert[..bytes], hex(SERVER_ALERT));
    }
}

#[test]
fn a_session_ticket_is_refused_by_a_server() {
    for library in LIBRARIES {
        let mut opener = Opener::new(keys(SERVER_SECRET, library, 0)).unwrap();
        let error = opener.open(&mut hex(SERVER_TICKET)).unwrap_err();
        assert_eq!(error, RecordError::UnexpectedHandshake(4));
    }
}
