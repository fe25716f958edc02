import { readFileSync } from 'node:fs'
import { migrationSql } from 'latchkey/sql'
import { beforeAll, describe, expect, it, vi } from 'vitest'
import { type PublicTypes, readPublicTypes } from '../support/compiler.ts'
import { codeIn, readTable } from '../support/markdown.ts'
import { byName, declaredOptions, listedOptions } from '../support/option-table.ts'

// A compiler is slow where much else runs.
vi.setConfig({ testTimeout: 60_000 })

describe('the tables of the guides', () => {
  let main: PublicTypes
  beforeAll(() => {
    main = readPublicTypes('latchkey')
  })

  it.each([
    ['configuration', 'option of `createApiKeys`', 'latchkey', 'ApiKeysOptions'],
    ['configuration', 'setting of a key', 'latchkey', 'KeySettings'],
    ['redis', 'option of `redisRateLimiter`', 'latchkey/redis', 'RedisRateLimiterOptions'],
    ['redis', 'option of `redisStore`', 'latchkey/redis', 'RedisStoreOptions'],
    ['redis', 'option of `redisInvalidation`', 'latchkey/redis', 'RedisInvalidationOptions'],
    ['redis', 'option of `redisTicketStore`', 'latchkey/redis', 'RedisTicketStoreOptions'],
    ['remote-verification', 'option of `remoteApiKeys`', 'latchkey/remote', 'RemoteApiKeysOptions'],
    ['remote-verification', 'option of `createApiKeysClient`', 'latchkey/client', 'ApiKeysClientOptions'],
    ['websockets-and-sse', 'option of `createTickets`', 'latchkey', 'TicketsOptions'],
    ['sql', 'option of a SQL store', 'latchkey/sql', 'SqlTableOptions'],
    ['management-api', 'member of an actor', 'latchkey/management', 'Actor'],
    ['management-api', 'member of `clientFields`', 'latchkey/management', 'ClientFields'],
  ])('list in %s.md every %s with its default', (page, title, door, type) => {
    const members = (door === 'latchkey' ? main : readPublicTypes(door)).members(type)
    expect(namesAndDefaults(page, title)).toEqual(
      members.map(({ name, defaultText }) => [name, shortDefault(name, defaultText)]),
    )
  })

  it('list every option of the router with its default', () => {
    const named = readTable(readPage('management-api'), 'option of `apiKeyRouter`').flatMap(
      ([names = '', value = '']) => codeIn(names).map((name) => [name, value]),
    )
    const members = readPublicTypes('latchkey/management/express').members('ApiKeyRouterOptions')
    const expected = members.map(({ name, defaultText }) => [name, shortDefault(name, defaultText)])
    expect(sorted(named)).toEqual(sorted(expected))
  })

  it('list every kind of event, reason and fault', () => {
    const named = (title: string) => firstCells('events-and-logs', title)
    expect(sorted(named('event'))).toEqual(sorted([...new Set(main.literals('ApiKeyEvent', 'type'))]))
    expect(sorted(named('reason'))).toEqual(sorted(main.literals('InvalidReason')))
    expect(sorted(named('`operation` of a fault'))).toEqual(sorted(main.literals('ApiKeyEvent', 'operation')))
  })

  it('list every option of apiKeyUpgrade with its default, and every reason of an end', () => {
    const page = readPage('websockets-and-sse')
    const members = readPublicTypes('latchkey/websocket').members('ApiKeyUpgradeOptions')
    expect(byName(listedOptions(page, 'option of `apiKeyUpgrade`'))).toEqual(byName(declaredOptions(members)))
    const reasons = readTable(page, 'reason').flatMap(([names = '']) => codeIn(names))
    expect(sorted(reasons)).toEqual(sorted(main.literals('KeyEndReason')))
  })

  it('list every column of the SQL stores', () => {
    const columns = [
      ...migrationSql('postgres').matchAll(/^ {2}(\w+) (?:text|bigint|integer|boolean)/gm),
    ].map(([, column]) => column as string)
    const ofMigrations = ['name', 'applied_at_ms']
    const expected = new Set(columns.filter((column) => !ofMigrations.includes(column)))
    expect(sorted(firstCells('sql', 'column'))).toEqual(sorted([...expected, 'name']))
  })
})

function readPage(name: string): string {
  return readFileSync(new URL(`../../docs/${name}.md`, import.meta.url), 'utf8')
}

function firstCells(page: string, title: string): string[] {
  return readTable(readPage(page), title).flatMap(([names = '']) => codeIn(names))
}

function namesAndDefaults(page: string, title: string): (string | undefined)[][] {
  return readTable(readPage(page), title).map(([name = '', value = '']) => [
    codeIn(name)[0],
    value.startsWith('`') ? value : '',
  ])
}

/** `null (never)` in a docstring is `null` in a table; a default in words is left to the table. */
function shortDefault(name: string, text: string | null): string {
  if (name === 'digest') return "`'hmac-sha256'` with `peppers`, otherwise `'sha256'`"
  const value = /^(?:'[\w:]+'|null|false|true|\[\]|\{.*?\}|[\d_]+)/.exec(text ?? '')?.[0]
  return value === undefined ? '' : `\`${value}\``
}

function sorted<T>(values: readonly T[]): T[] {
  return [...values].sort((a, b) => String(a).localeCompare(String(b)))
}
