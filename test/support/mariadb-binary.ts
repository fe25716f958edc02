import { dirname, join } from 'node:path'
import { findPackagedServer, isProgram, type Machine, type PackagedServer } from './debian-package.ts'

const SERVER = 'mariadbd'
const INSTALLER = 'mariadb-install-db'
/** The installer does not start without it; Debian has it in the package of the clients. */
const READER = 'my_print_defaults'

/** The server without what Debian adds to start it with the machine. */
const packages = ['mariadb-server-core', 'mariadb-client-core']

const mariadb: PackagedServer = {
  advice:
    'No MariaDB server was found, and these tests run against a real one. Put mariadbd and mariadb-install-db on ' +
    `the PATH (Debian and Ubuntu: apt-get install ${packages.join(' ')}; macOS: brew ` +
    'install mariadb), or name the mariadbd in MARIADBD_BIN.',
  variable: 'MARIADBD_BIN',
  named: 'program',
  readNamed: (path) => (isProgram(path) ? path : undefined),
  findIn(folder) {
    const server = join(folder, SERVER)
    return isProgram(server) && findBeside(server, INSTALLER) && findBeside(server, READER)
      ? server
      : undefined
  },
  // Debian's folder for servers is on root's PATH only.
  foldersBelow: (root) => [join(root, 'usr/sbin')],
  packages,
  archives: (missing) => missing(packages),
  cacheName: 'mariadb',
  launchers: () => [
    { name: SERVER, program: `usr/sbin/${SERVER}`, args: (place) => [`--basedir=${place}/usr`] },
    { name: INSTALLER, program: `usr/bin/${INSTALLER}`, args: (place) => [`--basedir=${place}/usr`] },
    { name: READER, program: `usr/bin/${READER}` },
  ],
}

/**
 * The path of a `mariadbd`: the one that `MARIADBD_BIN` names, one on the PATH, or Debian's. Where there is none,
 * Debian's package is installed, or unpacked in the cache by anybody but root.
 *
 * @throws Error that says what to install, since a test without its server must not pass.
 */
export function findMariadb(machine?: Machine): Promise<string> {
  return findPackagedServer(mariadb, machine)
}

/**
 * The path of the `mariadb-install-db` that belongs to a `mariadbd`.
 *
 * @throws Error where it is in none of the places that Debian and MariaDB's own archives have it in.
 */
export function findInstaller(mariadbd: string): string {
  const installer = findBeside(mariadbd, INSTALLER)
  if (installer === undefined) throw new Error(`${INSTALLER} is nowhere near ${mariadbd}`)
  return installer
}

function findBeside(mariadbd: string, name: string): string | undefined {
  return ['.', '../bin', '../scripts'].map((folder) => join(dirname(mariadbd), folder, name)).find(isProgram)
}
