import { symlinkSync } from 'node:fs'
import { join } from 'node:path'
import { findPackagedServer, isProgram, type Machine, type PackagedServer } from './debian-package.ts'

const redis: PackagedServer = {
  advice:
    'No Redis server was found, and these tests run against a real one. Put redis-server or valkey-server on ' +
    'the PATH (Debian and Ubuntu: apt-get install redis-server; macOS: brew install redis), or name the ' +
    'program in REDIS_SERVER_BIN.',
  variable: 'REDIS_SERVER_BIN',
  named: 'program',
  readNamed: (path) => (isProgram(path) ? path : undefined),
  findIn: (folder) => ['redis-server', 'valkey-server'].map((name) => join(folder, name)).find(isProgram),
  packages: ['redis-server'],
  archives: async () => ['redis-tools', 'libjemalloc2', 'liblzf1'],
  cacheName: 'redis',
  launchers(folder) {
    // Debian's `redis-check-rdb` is the server as well: which of them it is depends on the name it is run by.
    symlinkSync('redis-check-rdb', join(folder, 'usr/bin/redis-server'))
    return [{ name: 'redis-server', program: 'usr/bin/redis-server' }]
  },
}

/**
 * The path of a Redis or Valkey server: the one that `REDIS_SERVER_BIN` names, or one on the PATH. Where there is
 * neither, Debian's package is installed, or unpacked in the cache by anybody but root.
 *
 * @throws Error that says what to install, since a test without its server must not pass.
 */
export function findRedisServer(machine?: Machine): Promise<string> {
  return findPackagedServer(redis, machine)
}
