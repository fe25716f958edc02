import { isPromiseLike } from '../../internal/awaitable.ts'
import { type PermissionRequirement, type Permissions, readAlternatives } from './permissions.ts'

/** What a request requires of its key, or why nobody can tell. */
export type ToldRequirement =
  /** Without an alternative, if it names what no key can hold. */
  { readonly requirement: readonly Permissions[] } | { readonly error: unknown }

/** In every copy of the package: keys of one may be verified by a middleware of the other. */
const BRAND = Symbol.for('latchkey.requirement-of-request')

/**
 * Permissions that a function of the request names. They take the place of a requirement in the options of `verify`. The function
 * is asked once, when the key is proven and nothing is spent yet, and at once: between its answer and the spending there is no time in
 * which the key could be revoked.
 *
 * To a verifier that does not know of it, it is no requirement, so that the request gets a 503 rather than a pass.
 */
export class RequirementOfRequest {
  readonly [BRAND] = true
  private told: ToldRequirement | null = null

  constructor(private readonly ask: () => unknown) {}

  /** Makes it an object that no check takes for permissions. */
  get [Symbol.toStringTag](): string {
    return 'RequirementOfRequest'
  }

  /** Whether somebody has heard what the request requires. */
  get isTold(): boolean {
    return this.told !== null
  }

  tell(): ToldRequirement {
    this.told ??= readRequirement(this.ask)
    return this.told
  }

  toJSON(): never {
    throw new TypeError('permissions that are a function of the request cannot be sent')
  }
}

/** The function as the requirement that options of `verify` have. */
export function requirementOf(ask: () => unknown): PermissionRequirement {
  return new RequirementOfRequest(ask) as unknown as PermissionRequirement
}

/** Whether a requirement is a function of the request. */
export function isOfRequest(requirement: unknown): requirement is RequirementOfRequest {
  return (
    typeof requirement === 'object' &&
    requirement !== null &&
    (requirement as Partial<RequirementOfRequest>)[BRAND] === true
  )
}

/** What a requirement requires now: itself, unless it is a function of the request. */
export function toldBy(
  requirement: PermissionRequirement,
): { readonly requirement: PermissionRequirement } | { readonly error: unknown } {
  return isOfRequest(requirement) ? requirement.tell() : { requirement }
}

function readRequirement(ask: () => unknown): ToldRequirement {
  try {
    const answer = ask()
    if (isPromiseLike(answer)) {
      // A client must not be able to end the process.
      answer.then(undefined, () => {})
      throw new TypeError('"permissions()" must return permissions at once, not a promise')
    }
    // What no key can hold is met by none; its other alternatives may be met.
    return { requirement: readAlternatives('permissions()', answer).filter((one) => one !== null) }
  } catch (error) {
    return { error }
  }
}
