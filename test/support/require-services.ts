import { inject } from 'vitest'

/** Fails every test file that needs the services where they could not be started: none of them may pass unseen. */
const failure = inject('servicesFailure')
if (failure !== '') throw new Error(failure)
