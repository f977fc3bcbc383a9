// SPDX-License-Identifier: Apache-2.0
/** What programs of others are asked to do: [DEVICES] "Client / subcommand matrix", and some more. */

export interface Step {
  readonly client: string;
  /** As the matrix names it. */
  readonly subcommand: string;
  /** For sh, in a folder of its own; $BIN holds the programs. */
  readonly command: string;
  /** Why it fails on a real machine, too, under conditions like these; null when it works. */
  readonly refused: string | null;
}

function step(client: string, subcommand: string, command: string): Step {
  return { client, subcommand, command, refused: null };
}

const snpguest = (subcommand: string, args: string): Step =>
  step('snpguest', subcommand, `$BIN/snpguest ${args}`);

const snphost = (args: string): Step => step('snphost', args, `$BIN/snphost ${args}`);

const sevctl = (args: string): Step => step('sevctl', args, `$BIN/sevctl ${args}`);

const go = (subcommand: string, command: string): Step => step('go-sev-guest', subcommand, command);

/** test/oracle/tsm-report */
const tsm = (subcommand: string, args: string): Step =>
  step('go-configfs-tsm', subcommand, `$BIN/tsm-report ${args}`);

const ATTEST = '$BIN/attest -inform hex -infile nonce.hex';
const CHECK = '$BIN/check -product_name Milan-B1 -product_key_path kds/chain.pem -guest_policy 196608';
/** go-sev-guest asks the device only where there is no configfs. */
const WITHOUT_CONFIGFS = 'mount -t tmpfs none /sys/kernel/config';
/** Certificate and key by which the key service knows the cloud provider. */
const CSP = 'state/tls/client-softsnp.example.pem state/tls/client-softsnp.example.key';
const SEV_CA = 'https://kdsintf.amd.com/developer/eula/sev/ask_ark_milan.cert';
const ENTRY = '/sys/kernel/config/tsm/report/hand';

/** In this order: later ones use what earlier ones wrote. */
export const STEPS: readonly Step[] = [
  snpguest('report', 'report report.bin request.bin --random'),
  snpguest('report --vmpl 0', 'report vmpl0.bin request0.bin --random --vmpl 0'),
  snpguest('certificates', 'certificates pem blob'),
  snpguest('key, root VCEK', 'key vcek.key vcek'),
  snpguest('key, root VMRK', 'key vmrk.key vmrk --vmpl 1 --guest_field_select 63'),
  snpguest('display report', 'display report report.bin'),
  snpguest('display key', 'display key vcek.key'),
  snpguest('fetch ca', 'fetch ca pem kds milan'),
  snpguest('fetch vcek', 'fetch vcek pem kds report.bin'),
  snpguest('fetch crl', 'fetch crl pem kds milan'),
  snpguest('verify certs', 'verify certs kds'),
  snpguest('verify attestation, fetched certificates', 'verify attestation kds report.bin'),
  snpguest('verify attestation, the guest’s certificates', 'verify attestation blob report.bin'),
  snpguest('ok', 'ok'),
  go('attest (configfs-tsm)', `${ATTEST} -outform bin -out go-plain.bin`),
  go('attest -extended (configfs-tsm)', `${ATTEST} -extended -outform bin -out go-ext.bin`),
  go('attest -extended -outform proto', `${ATTEST} -extended -outform proto -out go-ext.pb`),
  go(
    'attest -extended (/dev/sev-guest)',
    `unshare -m sh -c '${WITHOUT_CONFIGFS} && ${ATTEST} -extended -outform bin -out go-dev.bin'`,
  ),
  tsm('report with certificates', 'get nonce.hex tsm-go.bin tsm-go.aux'),
  tsm('16 reports at once', 'parallel 16'),
  tsm('generations, privilege levels, refusals', 'rules'),
  go('show', '$BIN/show -in go-ext.bin -outform textproto'),
  go(
    'check',
    `cat kds/ask.pem kds/ark.pem > kds/chain.pem && ${CHECK} -in go-ext.bin -report_data $(cat nonce.hex)`,
  ),
  go('check -inform proto', `${CHECK} -in go-ext.pb -inform proto`),
  go('check -check_crl', `${CHECK} -in go-ext.bin -check_crl=true`),
  go('check, refusing another nonce', `! ${CHECK} -in go-ext.bin -report_data $(printf %0128d 0)`),
  step(
    'sh',
    'configfs-tsm: mkdir, inblob, outblob, auxblob, rmdir',
    `mkdir ${ENTRY} && xxd -r -p nonce.hex > ${ENTRY}/inblob && cat ${ENTRY}/outblob > tsm.bin && cat ${ENTRY}/auxblob > tsm.aux && rmdir ${ENTRY}`,
  ),
  step('curl', 'kdsintf.amd.com cert_chain', 'curl -sSf https://kdsintf.amd.com/vcek/v1/Milan/cert_chain'),
  step(
    'python3',
    'kdsintf.amd.com crl',
    `python3 -c "import urllib.request as u; u.urlopen('https://kdsintf.amd.com/vcek/v1/Milan/crl').read()"`,
  ),
  snphost('commit'),
  snphost('show guests'),
  snphost('show identifier'),
  snphost('show tcb'),
  snphost('show version'),
  snphost('show vcek-url'),
  snphost('show vlek-url'),
  snphost('show hashsticks-url'),
  step('curl', 'what snphost show vcek-url says', 'curl -sSf -o url.der "$($BIN/snphost show vcek-url)"'),
  snphost('config set 3 0 23 200 0'),
  step('snphost', 'show tcb, after config set', '$BIN/snphost show tcb'),
  snphost('config reset'),
  step('snphost', 'show tcb, after config reset', '$BIN/snphost show tcb'),
  snphost('fetch vek pem snphost'),
  snphost('fetch ca pem snphost'),
  snphost('fetch crl snphost'),
  snphost('verify certs snphost'),
  snphost('ok'),
  snphost('ok --output json'),
  snphost('export pem blob.bin exported'),
  snphost('import blob imported.bin'),
  snphost('verify certs blob'),
  step('snphost', 'fetch hashsticks', `$BIN/snphost fetch hashsticks vlek ${CSP}`),
  step(
    'snphost',
    'fetch vek --endorser vlek',
    '$BIN/snphost fetch vek pem vlek --endorser vlek --client-cert state/tls/client-softsnp.example.pem --private-key state/tls/client-softsnp.example.key',
  ),
  snphost('fetch ca pem vlek --endorser vlek'),
  snphost('fetch crl vlek --endorser vlek'),
  step('snphost', 'verify certs, VLEK', '$BIN/snphost verify certs vlek'),
  step('snphost', 'verify vlek-hashstick', '$BIN/snphost verify vlek-hashstick vlek/hashsticks'),
  step('snphost', 'vlek-load', '$BIN/snphost vlek-load vlek/hashsticks'),
  step(
    'snpguest',
    'report and verify attestation, VLEK',
    '$BIN/snpguest report vlek.bin request-vlek.bin --random && $BIN/snpguest verify attestation vlek vlek.bin',
  ),
  sevctl('ok'),
  sevctl('show flags'),
  sevctl('show guests'),
  sevctl('show identifier'),
  sevctl('show version'),
  sevctl('export chain.bin'),
  step('curl', 'kdsintf.amd.com ask_ark_milan.cert', `curl -sSf -o ask_ark.cert ${SEV_CA}`),
  sevctl('verify --sev chain.bin --ca ask_ark.cert'),
  sevctl('verify --ca ask_ark.cert'),
  step('sevctl', 'verify --sev chain.bin, refusing softsnp’s root', '! $BIN/sevctl verify --sev chain.bin'),
  step('sevctl', 'export --full, refusing softsnp’s root', '! $BIN/sevctl export --full full.bin'),
  sevctl('session chain.bin 1'),
  sevctl('generate oca.cert oca.key'),
  sevctl('provision oca.cert oca.key'),
  step('sevctl', 'show flags, now owned', '$BIN/sevctl show flags | grep -qx owned'),
  sevctl('export owned.bin'),
  sevctl('verify --sev owned.bin --oca oca.cert --ca ask_ark.cert'),
  step('sevctl', 'provision, refused to an owned platform', '! $BIN/sevctl provision oca.cert oca.key'),
  sevctl('rotate'),
  sevctl('export rotated.bin'),
  sevctl('verify --sev rotated.bin --oca oca.cert --ca ask_ark.cert'),
  sevctl('reset'),
  step('sevctl', 'show flags, owned no more', '! $BIN/sevctl show flags | grep -qx owned'),
  sevctl('export reset.bin'),
  sevctl('verify --sev reset.bin --ca ask_ark.cert'),
  // Last, for nothing brings the key back.
  {
    ...snpguest('key, message version 2', 'key lmv.key vcek --vmpl 1 --launch_mit_vector 0'),
    refused: 'by firmware before ABI 1.58, as hardware’s; the driver then disables its VMPCK',
  },
];

/** The same for a guest on firmware of ABI 1.58, which makes version 5 reports. */
export const NEWER_STEPS: readonly Step[] = [
  snpguest('key, message version 2, ABI 1.58', 'key lmv5.key vcek --vmpl 1 --launch_mit_vector 0'),
  snpguest('report, version 5', 'report report5.bin request5.bin --random'),
  snpguest('certificates, version 5', 'certificates pem blob5'),
  snpguest('verify attestation, version 5', 'verify attestation blob5 report5.bin'),
  go('attest -extended, version 5', `${ATTEST} -extended -outform bin -out go-ext5.bin`),
  go('check, version 5', `${CHECK} -in go-ext5.bin -report_data $(cat nonce.hex)`),
];
