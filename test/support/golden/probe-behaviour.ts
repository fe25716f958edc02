import { probeDefaults } from './probe-defaults.ts'
import { probeHttp } from './probe-http.ts'
import { readDocumentedOptions, readErrorCodes } from './read-documented.ts'
import type { FrozenBehaviour } from './releases.ts'

/** What the release that runs does, as far as `release` has it. */
export async function probeBehaviour(release: string): Promise<FrozenBehaviour> {
  return {
    defaults: await probeDefaults(release),
    options: readDocumentedOptions(),
    errors: readErrorCodes(),
    http: await probeHttp(release),
  }
}
