import { afterAll, inject } from 'vitest'
import { failOnInject } from './fail-on-inject.ts'
import { disconnectAll } from './redis-store.ts'

afterAll(disconnectAll)

// Fails every test file that asks for a service which could not be started: none of them may pass unseen.
for (const [name, reason] of Object.entries(inject('missingServices'))) failOnInject(name, reason)
