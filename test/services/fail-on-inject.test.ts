import { expect, inject, it } from 'vitest'
import { failOnInject } from '../support/fail-on-inject.ts'

it('lets nobody have a service that could not be started, and leaves the others alone', () => {
  failOnInject('postgresUrl', 'No PostgreSQL server was found')
  expect(() => inject('postgresUrl')).toThrow('No PostgreSQL server was found')
  expect(inject('redisUrl')).toMatch(/^redis:/)
})
