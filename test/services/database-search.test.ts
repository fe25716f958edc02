import { execFileSync } from 'node:child_process'
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, inject, it } from 'vitest'
import { fakeMachine } from '../support/fake-machine.ts'
import { findInstaller, findMariadb } from '../support/mariadb-binary.ts'
import { findPostgres } from '../support/postgres-binaries.ts'

/** Programs below the folder of a fake machine, none of which does anything. */
function addPrograms(folder: string, names: readonly string[]): string {
  mkdirSync(folder, { recursive: true })
  for (const name of names) writeFileSync(join(folder, name), '#!/bin/sh\n', { mode: 0o755 })
  return folder
}

const noNetwork = { dpkg: '', 'apt-get': 'echo "E: no route to the mirror" >&2; exit 100' }

describe('the search for PostgreSQL', () => {
  const both = ['initdb', 'postgres']

  it('says what to install or to set where there is none and nothing can be installed', async () => {
    await expect(findPostgres({ env: { PATH: '/nowhere' }, root: '/nowhere' })).rejects.toThrow(
      'No PostgreSQL server was found, and these tests run against a real one. Put initdb and postgres on the PATH ' +
        '(Debian and Ubuntu: apt-get install postgresql; macOS: brew install postgresql), or name the folder that ' +
        'has both in POSTGRES_BIN_DIR.',
    )
  })

  it.each([true, false])('says why the package could not be had, as root: %s', async (isRoot) => {
    const { env, path } = fakeMachine(noNetwork)
    await expect(findPostgres({ env, isRoot, cache: path('cache'), root: path('') })).rejects.toThrow(
      /^No PostgreSQL server was found[\s\S]*Installing it failed: [\s\S]*E: no route to the mirror$/,
    )
  })

  it('takes the folder that POSTGRES_BIN_DIR names, and nothing else', async () => {
    const binaries = inject('postgresBinaries')
    expect(await findPostgres({ env: { POSTGRES_BIN_DIR: binaries } })).toBe(binaries)
    await expect(findPostgres({ env: { POSTGRES_BIN_DIR: '/nowhere', PATH: binaries } })).rejects.toThrow(
      'POSTGRES_BIN_DIR names no folder with initdb and postgres: /nowhere',
    )
  })

  it('takes a folder of the PATH that has both programs', async () => {
    const { path } = fakeMachine({})
    const [half, whole] = [addPrograms(path('half'), ['postgres']), addPrograms(path('whole'), both)]
    expect(await findPostgres({ env: { PATH: `${half}:${whole}` }, root: path('') })).toBe(whole)
  })

  it('takes the newest of Debian’s versions', async () => {
    const { env, path } = fakeMachine({})
    for (const version of ['9.6', '15', '17']) addPrograms(path(`usr/lib/postgresql/${version}/bin`), both)
    addPrograms(path('usr/lib/postgresql/18/bin'), ['psql'])
    expect(await findPostgres({ env, root: path('') })).toBe(path('usr/lib/postgresql/17/bin'))
  })

  it('installs the package as root, and lets Debian start no server of its own', async () => {
    const machine = fakeMachine({
      dpkg: '',
      'apt-get': `
        echo "$DEBIAN_FRONTEND $*" >> "$HERE/log"
        [ "$1" = update ] && exec /bin/touch "$HERE/updated"
        [ -e "$HERE/updated" ] || exit 100
        pg_conftool /etc/postgresql-common/createcluster.conf show -bs create_main_cluster >> "$HERE/log"
        /bin/cp "$HERE/dpkg" "$HERE/initdb"; /bin/cp "$HERE/dpkg" "$HERE/postgres"`,
    })
    expect(await findPostgres({ env: machine.env, isRoot: true, root: machine.path('') })).toBe(
      machine.path(''),
    )
    const install =
      'noninteractive install -o DPkg::Lock::Timeout=120 -y --no-install-recommends postgresql\n'
    expect(readFileSync(machine.path('log'), 'utf8')).toBe(`${install}noninteractive update\n${install}off\n`)
  })

  it('unpacks what is missing as anybody else, once, without what it can do without', async () => {
    const machine = fakeMachine({
      'apt-get': `
        echo "$*" >> "$HERE/log"
        [ "$1" = download ] && : > postgresql-15.deb && exit
        echo 'Conf ssl-cert (1)'
        for name in libllvm14 locales-all libpq5 postgresql-15 postgresql; do echo "Inst $name (1 Debian)"; done`,
      dpkg: `
        for version in 9 15; do
          /bin/mkdir -p usr/lib/any-linux-gnu usr/lib/postgresql/$version/bin
          for name in initdb postgres; do /bin/cp "$HERE/program" usr/lib/postgresql/$version/bin/$name; done
        done`,
      program: 'echo "$0 $* $LD_LIBRARY_PATH"',
    })
    const cache = machine.path('cache')
    const search = () => findPostgres({ env: machine.env, isRoot: false, cache, root: '/nowhere' })
    const found = await search()
    expect(execFileSync(join(found, 'postgres'), ['-p', '1'], { encoding: 'utf8' })).toBe(
      `${cache}/postgres/usr/lib/postgresql/15/bin/postgres -p 1 ${cache}/postgres/usr/lib/any-linux-gnu\n`,
    )
    expect(await search()).toBe(found)
    expect(readFileSync(machine.path('log'), 'utf8')).toBe(
      'install --simulate --no-install-recommends postgresql\ndownload libpq5 postgresql-15 postgresql\n',
    )
    expect(readdirSync(cache)).toEqual(['postgres'])
  })
})

describe('the search for MariaDB', () => {
  const all = ['mariadbd', 'mariadb-install-db', 'my_print_defaults']

  it('says what to install or to set where there is none and nothing can be installed', async () => {
    await expect(findMariadb({ env: { PATH: '/nowhere' }, root: '/nowhere' })).rejects.toThrow(
      'No MariaDB server was found, and these tests run against a real one. Put mariadbd and mariadb-install-db on ' +
        'the PATH (Debian and Ubuntu: apt-get install mariadb-server-core mariadb-client-core; macOS: brew install ' +
        'mariadb), or name the mariadbd in MARIADBD_BIN.',
    )
  })

  it.each([true, false])('says why the package could not be had, as root: %s', async (isRoot) => {
    const { env, path } = fakeMachine(noNetwork)
    await expect(findMariadb({ env, isRoot, cache: path('cache'), root: path('') })).rejects.toThrow(
      /^No MariaDB server was found[\s\S]*Installing it failed: [\s\S]*E: no route to the mirror$/,
    )
  })

  it('takes the program that MARIADBD_BIN names, and nothing else', async () => {
    const binary = inject('mariadbBinary')
    expect(await findMariadb({ env: { MARIADBD_BIN: binary } })).toBe(binary)
    await expect(findMariadb({ env: { MARIADBD_BIN: '/nowhere/mariadbd' } })).rejects.toThrow(
      'MARIADBD_BIN names no program: /nowhere/mariadbd',
    )
  })

  it('takes one of the PATH or of Debian’s folder for servers that comes with its installer', async () => {
    const { path } = fakeMachine({})
    addPrograms(path('half'), ['mariadbd', 'mariadb-install-db'])
    addPrograms(path('usr/sbin'), ['mariadbd'])
    addPrograms(path('usr/bin'), ['mariadb-install-db', 'my_print_defaults'])
    const found = await findMariadb({ env: { PATH: path('half') }, root: path('') })
    expect(found).toBe(path('usr/sbin/mariadbd'))
    expect(findInstaller(found)).toBe(path('usr/bin/mariadb-install-db'))
    expect(() => findInstaller('/nowhere/at/all/mariadbd')).toThrow(
      'mariadb-install-db is nowhere near /nowhere/at/all/mariadbd',
    )
    expect(await findMariadb({ env: { PATH: addPrograms(path('whole'), all) }, root: path('') })).toBe(
      path('whole/mariadbd'),
    )
  })

  it('installs the packages as root, without those that start it with the machine', async () => {
    const machine = fakeMachine({
      dpkg: '',
      'apt-get': `echo "$*" >> "$HERE/log"; for name in ${all.join(' ')}; do /bin/cp "$HERE/dpkg" "$HERE/$name"; done`,
    })
    const found = await findMariadb({ env: machine.env, isRoot: true, root: machine.path('') })
    expect(found).toBe(machine.path('mariadbd'))
    expect(readFileSync(machine.path('log'), 'utf8')).toBe(
      'install -o DPkg::Lock::Timeout=120 -y --no-install-recommends mariadb-server-core mariadb-client-core\n',
    )
  })

  it('unpacks what is missing as anybody else, once', async () => {
    const machine = fakeMachine({
      'apt-get': `
        echo "$*" >> "$HERE/log"
        [ "$1" = download ] && : > mariadb.deb && exit
        for name in libaio1 mariadb-server-core mariadb-client-core; do echo "Inst $name (1 Debian)"; done`,
      dpkg: `
        /bin/mkdir -p usr/sbin usr/bin usr/lib/any-linux-gnu
        /bin/cp "$HERE/program" usr/sbin/mariadbd
        for name in mariadb-install-db my_print_defaults; do /bin/cp "$HERE/program" usr/bin/$name; done`,
      program: 'echo "$0 $* $LD_LIBRARY_PATH"',
    })
    const cache = machine.path('cache')
    const search = () => findMariadb({ env: machine.env, isRoot: false, cache, root: '/nowhere' })
    const found = await search()
    const [place, libraries] = [`${cache}/mariadb`, `${cache}/mariadb/usr/lib/any-linux-gnu`]
    expect(execFileSync(found, ['--no-defaults'], { encoding: 'utf8' })).toBe(
      `${place}/usr/sbin/mariadbd --no-defaults --basedir=${place}/usr ${libraries}\n`,
    )
    expect(execFileSync(findInstaller(found), ['--no-defaults'], { encoding: 'utf8' })).toBe(
      `${place}/usr/bin/mariadb-install-db --no-defaults --basedir=${place}/usr ${libraries}\n`,
    )
    expect(await search()).toBe(found)
    expect(readFileSync(machine.path('log'), 'utf8')).toBe(
      'install --simulate --no-install-recommends mariadb-server-core mariadb-client-core\n' +
        'download libaio1 mariadb-server-core mariadb-client-core\n',
    )
    expect(readdirSync(cache)).toEqual(['mariadb'])
  })
})
