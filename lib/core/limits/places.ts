import type { CompiledLimit, LimitState } from './rate-limit.ts'

/** The places that a call has taken: one in each of these limits. */
export interface PlacesRequest {
  readonly lineageId: string
  /** As in the request that was admitted. */
  readonly owner?: string | undefined
  readonly id: string
  /** Whether only this process has counted them. */
  readonly isLocal?: boolean
  readonly limits: readonly CompiledLimit[]
}

/** When to ask again where all places are taken: nobody knows when one comes free. */
export const PLACE_RETRY_MS = 1_000

/** How a limit of kind `concurrent` stands. */
export function placeState({ name, limit }: CompiledLimit, held: number, exceeded: boolean): LimitState {
  const remaining = Math.max(0, limit - held)
  return { type: 'concurrent', name, limit, remaining, windowMs: null, resetMs: null, exceeded }
}
