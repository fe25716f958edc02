import { inject } from 'vitest'
import { failOnInject } from './fail-on-inject.ts'

// Fails every test file that asks for a service which could not be started: none of them may pass unseen.
for (const [name, reason] of Object.entries(inject('missingServices'))) failOnInject(name, reason)
