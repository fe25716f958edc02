import { rawRequest } from './raw-request.ts'
import { stateOf } from './request-state.ts'

/**
 * Gives back what a request has spent of its key's limits and quota, once: for a request that failed through no fault of
 * the caller's. False where nothing was spent, or it was given back already.
 *
 * @throws LatchkeyError `unavailable` when the limiter cannot be told; what was spent then stays spent.
 * @throws LatchkeyError `unsupported` when the limiter cannot give back.
 * @example
 * app.post('/reports', apiKeyAuth(keys, { cost: 5 }), async (req, res) => {
 *   const report = await reports.create().catch(() => null)
 *   if (!report) await refund(req)
 *   res.status(report ? 201 : 502).json(report)
 * })
 */
export async function refund(request: object): Promise<boolean> {
  let isRefunded = false
  for (const { keys, verified } of stateOf(rawRequest(request)).admissions ?? []) {
    if (await keys.refund?.(verified)) isRefunded = true
  }
  return isRefunded
}
